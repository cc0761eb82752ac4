//! Rows and definitions to SQL text that the stock client loads. [`cell`] writes one value,
//! [`insert`] whole statements, [`script`] what stands around them in a file; [`body`] takes
//! a file of definitions apart again. Which protocol reads a table is decided here too.

pub mod body;
pub mod cell;
pub mod insert;
mod protocol;
pub mod script;
