//! Reads what `/metrics` says, and finds whatever is not OpenMetrics 1.0 in it.

use std::collections::{BTreeMap, BTreeSet};

/// One line with a value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sample {
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) value: f64,
}

/// A metric with all of its samples.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Family {
    pub(crate) kind: String,
    pub(crate) help: String,
    pub(crate) samples: Vec<Sample>,
}

/// All metrics by their names, as in the lines that begin with `# TYPE`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Exposition(pub(crate) BTreeMap<String, Family>);

/// What samples of a kind of metric end with.
fn suffixes(kind: &str) -> &'static [&'static str] {
    match kind {
        "counter" => &["_total"],
        "histogram" => &["_bucket", "_count", "_sum"],
        "info" => &["_info"],
        "gauge" => &[""],
        _ => &[],
    }
}

impl Exposition {
    /// Reads a text; the first thing that is wrong with it otherwise.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let body = text.strip_suffix("# EOF\n").ok_or("it does not end with `# EOF`")?;
        let mut families: BTreeMap<String, Family> = BTreeMap::new();
        let mut current = String::new();
        for line in body.lines() {
            if let Some(meta) = line.strip_prefix("# ") {
                let mut words = meta.splitn(3, ' ');
                let (Some(what), Some(name), Some(rest)) = (words.next(), words.next(), words.next()) else {
                    return Err(format!("not metadata: {line}"));
                };
                if name != current && families.contains_key(name) {
                    return Err(format!("{name} stands there twice"));
                }
                current = name.into();
                let family = families.entry(current.clone()).or_default();
                match what {
                    "HELP" => family.help = rest.into(),
                    "TYPE" => family.kind = rest.into(),
                    "UNIT" if name.ends_with(&format!("_{rest}")) => {}
                    _ => return Err(format!("a strange line: {line}")),
                }
                continue;
            }
            let sample = parse_sample(line).ok_or_else(|| format!("not a sample: {line}"))?;
            let family = families.get_mut(&current).ok_or_else(|| format!("a sample of nothing: {line}"))?;
            let suffix = sample.name.strip_prefix(&current).ok_or_else(|| format!("not of {current}: {line}"))?;
            if !suffixes(&family.kind).contains(&suffix) {
                return Err(format!("a {} does not end so: {line}", family.kind));
            }
            family.samples.push(sample);
        }
        families.iter().try_for_each(|(name, family)| check(name, family))?;
        Ok(Self(families))
    }

    /// The names of all samples' metrics: as they are asked for in PromQL.
    pub(crate) fn series(&self) -> BTreeSet<String> {
        self.0.values().flat_map(|family| &family.samples).map(|sample| sample.name.clone()).collect()
    }

    /// The sum of all samples of this name that have these labels.
    pub(crate) fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let has =
            |sample: &&Sample| labels.iter().all(|(key, value)| sample.labels.get(*key).is_some_and(|v| v == value));
        let samples = self.0.values().flat_map(|family| &family.samples).filter(|sample| sample.name == name);
        samples.filter(has).map(|sample| sample.value).sum()
    }
}

fn parse_sample(line: &str) -> Option<Sample> {
    let end = line.find(['{', ' '])?;
    let (name, rest) = line.split_at(end);
    let well_formed = |name: &str| {
        !name.is_empty()
            && name.bytes().all(|b| b == b'_' || b.is_ascii_alphanumeric())
            && !name.as_bytes()[0].is_ascii_digit()
    };
    let (labels, value) = match rest.strip_prefix('{') {
        Some(rest) => {
            let (labels, value) = rest.rsplit_once("} ")?;
            (parse_labels(labels)?, value)
        }
        None => (BTreeMap::new(), rest.strip_prefix(' ')?),
    };
    let value = value.parse().ok()?;
    (well_formed(name) && labels.keys().all(|key| well_formed(key))).then(|| Sample {
        name: name.into(),
        labels,
        value,
    })
}

fn parse_labels(mut text: &str) -> Option<BTreeMap<String, String>> {
    let mut labels = BTreeMap::new();
    while !text.is_empty() {
        let (key, rest) = text.split_once("=\"")?;
        // No label of ours has a quote in it.
        let (value, rest) = rest.split_once('"')?;
        let twice = labels.insert(key.to_owned(), value.to_owned()).is_some();
        text = if rest.is_empty() { rest } else { rest.strip_prefix(',')? };
        if twice || value.contains(['\\', '\n']) {
            return None;
        }
    }
    Some(labels)
}

/// What must hold of a metric as a whole.
fn check(name: &str, family: &Family) -> Result<(), String> {
    if family.help.is_empty() || family.kind.is_empty() {
        return Err(format!("{name} has no help or no type"));
    }
    let mut seen = BTreeSet::new();
    for sample in &family.samples {
        if !seen.insert((&sample.name, &sample.labels)) {
            return Err(format!("{} stands there twice with {:?}", sample.name, sample.labels));
        }
        if family.kind != "gauge" && sample.value < 0.0 {
            return Err(format!("{} is below zero", sample.name));
        }
    }
    if family.kind == "histogram" { check_buckets(name, family) } else { Ok(()) }
}

fn check_buckets(name: &str, family: &Family) -> Result<(), String> {
    let mut last: BTreeMap<BTreeMap<String, String>, (f64, f64)> = BTreeMap::new();
    for sample in &family.samples {
        let mut labels = sample.labels.clone();
        if sample.name.ends_with("_bucket") {
            let le = labels.remove("le").ok_or_else(|| format!("a bucket of {name} without an end"))?;
            let le: f64 = le.parse().map_err(|_| format!("a bucket of {name} ends at {le}"))?;
            let before = last.insert(labels, (le, sample.value)).unwrap_or((f64::NEG_INFINITY, 0.0));
            if le <= before.0 || sample.value < before.1 {
                return Err(format!("the buckets of {name} go back"));
            }
        }
    }
    for sample in family.samples.iter().filter(|sample| sample.name.ends_with("_count")) {
        if last.get(&sample.labels) != Some(&(f64::INFINITY, sample.value)) {
            return Err(format!("the count of {name} is not its last bucket"));
        }
    }
    Ok(())
}

#[test]
fn what_is_wrong_with_a_text_is_found() {
    let good = "# HELP a_b A.\n# TYPE a_b counter\na_b_total{x=\"1\",y=\"2\"} 3\n# EOF\n";
    let read = Exposition::parse(good).expect("it is right");
    assert_eq!((read.value("a_b_total", &[("y", "2")]), read.value("a_b_total", &[("y", "3")])), (3.0, 0.0));
    let histogram =
        "# HELP h H.\n# TYPE h histogram\nh_sum 1\nh_count 2\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 2\n# EOF\n";
    assert!(Exposition::parse(histogram).is_ok());
    for (from, to, complaint) in [
        (good, good.replace("# EOF\n", ""), "EOF"),
        (good, good.replace("_total", ""), "does not end so"),
        (good, good.replace("3\n", "x\n"), "not a sample"),
        (good, good.replace("3\n", "-3\n"), "below zero"),
        (good, good.replace("# HELP a_b A.\n", ""), "no help"),
        (good, good.replace("y=\"2\"", "x=\"2\""), "not a sample"),
        (good, good.replace("# EOF", "a_b_total{x=\"1\",y=\"2\"} 3\n# EOF"), "twice"),
        (good, good.replace("# TYPE", "# UNIT a_b seconds\n# TYPE"), "strange"),
        (histogram, histogram.replace("le=\"1\"} 1", "le=\"1\"} 3"), "go back"),
        (histogram, histogram.replace("h_count 2", "h_count 3"), "last bucket"),
    ] {
        assert_ne!(from, to);
        let found = Exposition::parse(&to).expect_err(&to);
        assert!(found.contains(complaint), "{found}: {to}");
    }
}
