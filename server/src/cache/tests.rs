//! What must hold of the cache as a whole.

mod endpoints;
mod fleet;
mod grants;
mod invalidations;
mod rejections;
mod serving;
mod watching;
mod world;
