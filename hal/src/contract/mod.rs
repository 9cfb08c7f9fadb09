//! What every machine must provide. QKernel never calls these traits; it calls the functions of `hal`'s modules,
//! which choose the machine.

mod host;
mod space;
mod threads;
mod user;

pub use host::HostService;
pub use space::Spaces;
pub use threads::{Clock, Threads};
pub use user::UserAccess;
