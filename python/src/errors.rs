//! The library's errors as Python's exceptions.

use std::io::ErrorKind;

use pyo3::exceptions::{
    PyException, PyFileExistsError, PyFileNotFoundError, PyIsADirectoryError, PyKeyboardInterrupt, PyMemoryError,
    PyNotADirectoryError, PyOSError, PyPermissionError, PyValueError,
};
use pyo3::{PyErr, create_exception};

create_exception!(
    gossamer,
    Error,
    PyException,
    "A failure that no exception of Python's own describes: a device, a damaged file, a model of the Hub."
);

/// The exception for an error, with its message.
pub fn exception(error: gossamer::Error) -> PyErr {
    use gossamer::Error as E;
    let message = gossamer::error::explain(&error);
    match error {
        E::Io { source, .. } => match source.kind() {
            ErrorKind::NotFound => PyFileNotFoundError::new_err(message),
            ErrorKind::PermissionDenied => PyPermissionError::new_err(message),
            ErrorKind::AlreadyExists => PyFileExistsError::new_err(message),
            ErrorKind::IsADirectory => PyIsADirectoryError::new_err(message),
            ErrorKind::NotADirectory => PyNotADirectoryError::new_err(message),
            _ => PyOSError::new_err(message),
        },
        E::Memory(_) | E::Limit { .. } => PyMemoryError::new_err(message),
        E::Stopped => PyKeyboardInterrupt::new_err(message),
        E::Shape { .. }
        | E::Config { .. }
        | E::Unknown { .. }
        | E::Mismatch(_)
        | E::OtherModel { .. }
        | E::Request(_)
        | E::Tokenizer(_)
        | E::UnsuitableTask { .. }
        | E::Data(_) => PyValueError::new_err(message),
        _ => Error::new_err(message),
    }
}

/// A result of the library as one of Python.
pub trait OrRaise<T> {
    /// The value, or the fitting exception.
    fn or_raise(self) -> Result<T, PyErr>;
}

impl<T> OrRaise<T> for gossamer::Result<T> {
    fn or_raise(self) -> Result<T, PyErr> {
        self.map_err(exception)
    }
}
