//! Our own tables in the target: the schema `ripcord`. SQL about them stands here and nowhere else.

pub mod history;
pub mod lock;
pub mod schema;

pub use history::*;
pub use lock::*;
pub use schema::*;
