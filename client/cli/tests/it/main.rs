//! The real `tokencache` against a scripted broker.

#[cfg(test)]
mod commands;
#[cfg(test)]
mod exec;
#[cfg(test)]
mod failures;
#[cfg(test)]
mod fake;
#[cfg(test)]
mod helpers;
#[cfg(test)]
mod minting;
#[cfg(test)]
mod proxy;
#[cfg(test)]
mod settings;
#[cfg(test)]
mod upstream;
