//! The client against a broker that a test scripts, and the decorators against upstreams that refuse dead tokens.

#[cfg(test)]
mod blocking;
#[cfg(test)]
mod calls;
#[cfg(test)]
mod cassettes;
#[cfg(test)]
mod fake;
#[cfg(test)]
mod replicas;
#[cfg(test)]
mod reqwest;
#[cfg(test)]
mod sources;
#[cfg(test)]
mod tls;
#[cfg(test)]
mod tower;
#[cfg(test)]
mod upstream;
