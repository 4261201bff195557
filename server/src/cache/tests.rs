//! What must hold of the cache as a whole.

mod alone;
mod claims;
mod endpoints;
mod fleet;
mod grants;
mod invalidations;
mod journal;
mod rejections;
mod serving;
mod watching;
mod world;
