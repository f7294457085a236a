//! Parameters made of the tensors of a file that names or lays them out in another way.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::files::{FloatType, HostTensor, TensorInfo, TensorSource};
use crate::{Error, Result};

/// Where a parameter is in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// The tensor of that name.
    Tensor(String),
    /// The matrix of that name, transposed.
    Transposed(String),
    /// The matrices of these names, one below the other.
    Rows(Vec<String>),
    /// Nowhere: all its numbers are zero.
    Zeros,
}

impl Origin {
    fn names(&self) -> &[String] {
        match self {
            Self::Tensor(name) | Self::Transposed(name) => std::slice::from_ref(name),
            Self::Rows(names) => names,
            Self::Zeros => &[],
        }
    }
}

/// A source of parameters over that of a file.
pub(super) struct Assembled {
    inner: Box<dyn TensorSource>,
    path: PathBuf,
    entries: BTreeMap<String, TensorInfo>,
    others: BTreeMap<String, String>,
    origins: BTreeMap<String, Origin>,
}

impl Assembled {
    /// Makes `parameters` (name, shape, origin) of the tensors in `inner`. One whose tensor has the
    /// same name may be missing. Tensors that no parameter is made of keep their names, except
    /// those of which `is_buffer` says that they are none; `path` is for messages.
    ///
    /// # Errors
    /// [`Error::File`] naming the tensor that is missing, has an impossible shape, or would have the
    /// name of another.
    pub(super) fn new(
        inner: Box<dyn TensorSource>,
        parameters: impl Iterator<Item = (String, Vec<usize>, Origin)>,
        is_buffer: fn(&str) -> bool,
        path: &Path,
    ) -> Result<Self> {
        let (mut entries, mut origins, mut others) = (BTreeMap::new(), BTreeMap::new(), inner.others());
        let mut used = std::collections::HashSet::new();
        others.retain(|name, _| !is_buffer(name));
        for (name, shape, origin) in parameters {
            let same_name = matches!(&origin, Origin::Tensor(own) | Origin::Transposed(own) if *own == name);
            if same_name && !inner.entries().contains_key(&name) {
                continue;
            }
            let info = info(inner.as_ref(), shape, &origin).map_err(|message| Error::file(path, message))?;
            used.extend(origin.names().iter().cloned());
            entries.insert(name.clone(), info);
            origins.insert(name, origin);
        }
        for (name, info) in inner.entries() {
            if used.contains(name) || is_buffer(name) {
                continue;
            }
            if entries.insert(name.clone(), info.clone()).is_some() {
                return Err(Error::file(path, format!("holds `{name}` next to the tensors that it is made of")));
            }
            origins.insert(name.clone(), Origin::Tensor(name.clone()));
        }
        Ok(Self { inner, path: path.into(), entries, others, origins })
    }
}

/// The header of a parameter that is made so; `shape` is that of zeros.
fn info(inner: &dyn TensorSource, shape: Vec<usize>, origin: &Origin) -> Result<TensorInfo, String> {
    let find = |name: &String| match (inner.entries().get(name), inner.others().get(name)) {
        (Some(info), _) => Ok(info.clone()),
        (None, Some(what)) => Err(format!("tensor `{name}` is of the wrong type ({what}): floats are needed")),
        (None, None) => Err(format!("lacks the tensor `{name}`")),
    };
    let matrix = |name: &String| {
        let info = find(name)?;
        match info.shape[..] {
            [rows, columns] => Ok((rows, columns, info.float)),
            _ => Err(format!("tensor `{name}` has the shape {:?}; a matrix is needed", info.shape)),
        }
    };
    match origin {
        Origin::Tensor(name) => find(name),
        Origin::Transposed(name) => {
            let (rows, columns, float) = matrix(name)?;
            Ok(TensorInfo { shape: vec![columns, rows], float })
        }
        Origin::Rows(names) => {
            let parts = names.iter().map(matrix).collect::<Result<Vec<_>, _>>()?;
            let &(_, width, float) = parts.first().ok_or("no tensors")?;
            if let Some(at) = parts.iter().position(|&(_, columns, _)| columns != width) {
                let (a, b) = (&names[0], &names[at]);
                return Err(format!("`{a}` has {width} columns, but `{b}` {}", parts[at].1));
            }
            let rows = parts.iter().fold(0usize, |sum, part| sum.saturating_add(part.0));
            let same = parts.iter().all(|part| part.2 == float);
            Ok(TensorInfo { shape: vec![rows, width], float: if same { float } else { FloatType::F32 } })
        }
        Origin::Zeros => Ok(TensorInfo { shape, float: FloatType::F32 }),
    }
}

impl TensorSource for Assembled {
    fn entries(&self) -> &BTreeMap<String, TensorInfo> {
        &self.entries
    }

    fn others(&self) -> BTreeMap<String, String> {
        self.others.clone()
    }

    fn read(&self, name: &str) -> Result<HostTensor> {
        let (Some(info), Some(origin)) = (self.entries.get(name), self.origins.get(name)) else {
            return Err(Error::file(&self.path, format!("tensor `{name}` is not in the file")));
        };
        let shape = info.shape.clone();
        let data = match origin {
            Origin::Tensor(name) => return self.inner.read(name),
            Origin::Transposed(name) => transposed(&self.inner.read(name)?),
            Origin::Rows(names) => {
                let mut data = Vec::new();
                for name in names {
                    data.extend(self.inner.read(name)?.data);
                }
                data
            }
            Origin::Zeros => vec![0.0; shape.iter().product()],
        };
        Ok(HostTensor { shape, data })
    }
}

/// The numbers of a matrix, column by column.
fn transposed(matrix: &HostTensor) -> Vec<f32> {
    let &[rows, columns] = &matrix.shape[..] else { return matrix.data.clone() };
    let column = |c: usize| (0..rows).map(move |r| r * columns + c);
    (0..columns).flat_map(column).filter_map(|at| matrix.data.get(at).copied()).collect()
}
