//! The client against a broker that a test scripts.

#[cfg(test)]
mod calls;
#[cfg(test)]
mod fake;
