//! The command lines of `gossamer` and `train`: arguments and printing. The binaries and the Python
//! package start them.

pub mod gossamer;
pub mod train;
