//! The real `tokencache` against a scripted broker.

#[cfg(test)]
mod commands;
#[cfg(test)]
mod failures;
#[cfg(test)]
mod fake;
#[cfg(test)]
mod settings;
