//! Randomness that is handed out, so that a test's seed repeats its run.

use std::{fmt, sync::Mutex};

use rand::{SeedableRng as _, rngs::StdRng};

/// A generator that many share. Drawn from when a token is minted or an attempt fails, never on a hit.
pub struct SharedRng(Mutex<StdRng>);

impl SharedRng {
    /// Seeded by the operating system.
    #[must_use]
    pub fn from_os() -> Self {
        let mut rng = rand::rngs::SysRng;
        let seeded = StdRng::try_from_rng(&mut rng).expect("the operating system's random source works");
        Self(Mutex::new(seeded))
    }

    /// Seeded by a number.
    #[must_use]
    pub fn from_seed(seed: u64) -> Self {
        Self(Mutex::new(StdRng::seed_from_u64(seed)))
    }

    /// Draws.
    pub fn with<T>(&self, draw: impl FnOnce(&mut StdRng) -> T) -> T {
        draw(&mut self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

impl fmt::Debug for SharedRng {
    /// Shows nothing of its state.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedRng")
    }
}
