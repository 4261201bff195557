//! Which schemas a program may use: those that it knows, and newer ones that still admit it.
//!
//! Migrations expand the schema, or contract it once no program uses what they take away; the table `schema_versions` says
//! which programs those are. So replicas of two versions run side by side, and one that was left behind finds out.

use sqlx::FromRow;
use thiserror::Error;

/// What the schema asks of the programs that use it: the version that they know at least.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromRow)]
pub(in crate::store) struct Bounds {
    pub(in crate::store) min_reader: i64,
    pub(in crate::store) min_writer: i64,
}

/// What a program is about to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Access {
    Read,
    Write,
}

impl Bounds {
    /// Whether a program may do this that knows the schema up to the version `known`.
    pub(in crate::store) fn admit(self, access: Access, known: i64) -> Result<(), Misfit> {
        let Self { min_reader, min_writer } = self;
        match access {
            _ if known < min_reader => Err(Misfit::Unreadable { known, needed: min_reader }),
            Access::Write if known < min_writer => Err(Misfit::Unwritable { known, needed: min_writer }),
            Access::Read | Access::Write => Ok(()),
        }
    }
}

/// Why a program may not use the schema that it found.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(in crate::store) enum Misfit {
    #[error(
        "the schema of the database is too new for this program, which knows versions up to {known}, while reading it takes \
         version {needed} at least: upgrade tokencached"
    )]
    Unreadable { known: i64, needed: i64 },
    #[error(
        "the schema of the database is too new for this program, which knows versions up to {known}: it may still be read, \
         but writing it takes version {needed} at least: upgrade tokencached"
    )]
    Unwritable { known: i64, needed: i64 },
    #[error("the schema version {0} of the database was not made by this program")]
    Foreign(i64),
    #[error("the migration to the schema version {0} of the database was not finished")]
    Unfinished(i64),
    #[error(
        "the database has the schema version {found}, but not version {missing}, which this program knows: upgrade \
         tokencached, which will bring the schema up to date"
    )]
    Gap { found: i64, missing: i64 },
    #[error("the database does not say for which programs its schema is: the table schema_versions has lost its row")]
    Unmarked,
}

/// A migration, as a database remembers it.
#[derive(Clone, Debug, FromRow)]
pub(in crate::store) struct Applied {
    pub(in crate::store) version: i64,
    pub(in crate::store) checksum: Vec<u8>,
    pub(in crate::store) success: bool,
}

/// Whether a schema that admits the program has everything that the program knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Fit {
    /// It has, and perhaps more.
    Current,
    /// Migrations have to be run.
    Behind,
}

/// The newest version that a program knows.
pub(in crate::store) fn newest(known: &[(i64, &[u8])]) -> i64 {
    known.iter().map(|(version, _)| *version).max().unwrap_or(0)
}

/// Compares what a program knows with what a database has; `bounds` are `None` before the migration that brought them.
pub(in crate::store) fn compare(
    known: &[(i64, &[u8])],
    applied: &[Applied],
    bounds: Option<Bounds>,
) -> Result<Fit, Misfit> {
    if let Some(unfinished) = applied.iter().find(|migration| !migration.success) {
        return Err(Misfit::Unfinished(unfinished.version));
    }
    let top = newest(known);
    for migration in applied {
        match known.iter().find(|(version, _)| *version == migration.version) {
            Some((_, checksum)) if **checksum == migration.checksum => {}
            // Above what is known it is a newer program's, whose bounds decide.
            None if migration.version > top && bounds.is_some() => {}
            Some(_) | None => return Err(Misfit::Foreign(migration.version)),
        }
    }
    if let Some(bounds) = bounds {
        bounds.admit(Access::Write, top)?;
    }
    let missing =
        known.iter().map(|(version, _)| *version).find(|version| !applied.iter().any(|a| a.version == *version));
    let found = applied.iter().map(|migration| migration.version).max().unwrap_or(0);
    match missing {
        None => Ok(Fit::Current),
        Some(_) if found <= top => Ok(Fit::Behind),
        Some(missing) => Err(Misfit::Gap { found, missing }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [(i64, &[u8]); 3] = [(1, b"one"), (2, b"two"), (3, b"three")];

    fn applied(migrations: &[(i64, &[u8])]) -> Vec<Applied> {
        let applied = migrations.iter();
        applied
            .map(|(version, checksum)| Applied { version: *version, checksum: checksum.to_vec(), success: true })
            .collect()
    }

    fn bounds(min_reader: i64, min_writer: i64) -> Option<Bounds> {
        Some(Bounds { min_reader, min_writer })
    }

    #[test]
    fn a_schema_that_lacks_what_is_known_is_brought_up_to_date() {
        assert_eq!(compare(&KNOWN, &[], None), Ok(Fit::Behind));
        assert_eq!(compare(&KNOWN, &applied(&KNOWN[..1]), None), Ok(Fit::Behind));
        assert_eq!(compare(&KNOWN, &applied(&KNOWN), bounds(1, 1)), Ok(Fit::Current));
    }

    #[test]
    fn a_newer_schema_is_used_as_long_as_it_admits_the_program() {
        let newer = applied(&[KNOWN[0], KNOWN[1], KNOWN[2], (7, b"seven")]);
        assert_eq!(compare(&KNOWN, &newer, bounds(1, 3)), Ok(Fit::Current));
        let unwritable = compare(&KNOWN, &newer, bounds(2, 7)).expect_err("it may be read only");
        assert_eq!(unwritable, Misfit::Unwritable { known: 3, needed: 7 });
        assert!(unwritable.to_string().contains("up to 3: it may still be read, but writing it takes version 7"));
        let unreadable = compare(&KNOWN, &newer, bounds(7, 7)).expect_err("it may not even be read");
        assert_eq!(unreadable, Misfit::Unreadable { known: 3, needed: 7 });
        assert_eq!(compare(&KNOWN, &newer, None), Err(Misfit::Foreign(7)), "nobody says for whom it is");
    }

    #[test]
    fn reading_and_writing_are_admitted_apart() {
        let bounds = Bounds { min_reader: 2, min_writer: 3 };
        assert_eq!(bounds.admit(Access::Read, 2), Ok(()));
        assert_eq!(bounds.admit(Access::Write, 2), Err(Misfit::Unwritable { known: 2, needed: 3 }));
        assert_eq!(bounds.admit(Access::Read, 1), Err(Misfit::Unreadable { known: 1, needed: 2 }));
        assert_eq!(bounds.admit(Access::Write, 3), Ok(()));
    }

    #[test]
    fn a_schema_of_another_history_is_refused() {
        let changed = applied(&[KNOWN[0], (2, b"another two"), KNOWN[2]]);
        assert_eq!(compare(&KNOWN, &changed, bounds(1, 1)), Err(Misfit::Foreign(2)));
        let between = applied(&[KNOWN[0], (2, b"two")]);
        assert_eq!(compare(&[KNOWN[0], KNOWN[2]], &between, bounds(1, 1)), Err(Misfit::Foreign(2)));
        let gap = applied(&[KNOWN[0], KNOWN[2], (7, b"seven")]);
        assert_eq!(compare(&KNOWN, &gap, bounds(1, 1)), Err(Misfit::Gap { found: 7, missing: 2 }));
        let mut unfinished = applied(&KNOWN);
        unfinished[2].success = false;
        assert_eq!(compare(&KNOWN, &unfinished, bounds(1, 1)), Err(Misfit::Unfinished(3)));
    }
}
