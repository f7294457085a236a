//! What callers may pass: text, token ids in any form, sites, edits, metrics.

use std::collections::BTreeMap;

use gossamer::files::HostTensor;
use gossamer::formats::Pretrained;
use gossamer::model::{AnswerTokens, Edit, Metric, ModelConfig, Site};
use numpy::{PyArrayDescrMethods, PyArrayDyn, PyArrayMethods, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyString, PyTuple};

use serde::de::{DeserializeOwned, IntoDeserializer};

use crate::errors::OrRaise;

/// The ids of prompts.
pub struct Tokens;

impl Tokens {
    /// Prompts: a text, a list of texts, the ids of one prompt, a list of ids of several, or an
    /// array or tensor of integers `(T)` or `(B, T)`.
    ///
    /// # Errors
    /// TypeError and ValueError for anything else, and the errors of encoding.
    pub fn of_all(prompts: &Bound<'_, PyAny>, model: &Pretrained) -> PyResult<Vec<Vec<u32>>> {
        if prompts.is_instance_of::<PyString>() {
            return Ok(vec![Self::of_one(prompts, Some(model))?]);
        }
        if let Some(items) = items(prompts)? {
            let Some(first) = items.first() else {
                return Err(PyValueError::new_err("no prompts"));
            };
            if !is_number(first)? {
                return items.iter().map(|prompt| Self::of_one(prompt, Some(model))).collect();
            }
            return Ok(vec![Self::of_one(prompts, Some(model))?]);
        }
        let (shape, ids) = integers(prompts)?;
        match shape[..] {
            [_] => Ok(vec![ids]),
            // `chunks` of no ids are none, but there are prompts, which are empty.
            [count, 0] => Ok(vec![Vec::new(); count]),
            [_, length] => Ok(ids.chunks(length).map(<[u32]>::to_vec).collect()),
            _ => Err(PyValueError::new_err(format!("token ids of shape {shape:?}; (T) or (B, T) is expected"))),
        }
    }

    /// One prompt: a text, if there is a tokenizer, or ids.
    ///
    /// # Errors
    /// As [`Tokens::of_all`].
    pub fn of_one(prompt: &Bound<'_, PyAny>, model: Option<&Pretrained>) -> PyResult<Vec<u32>> {
        if let (Ok(text), Some(model)) = (prompt.cast::<PyString>(), model) {
            return model.encode(text.to_str()?, false).or_raise();
        }
        if items(prompt)?.is_some_and(|items| items.is_empty()) {
            return Ok(Vec::new());
        }
        let (shape, ids) = integers(prompt)?;
        match shape[..] {
            [_] | [1, _] => Ok(ids),
            _ => Err(PyValueError::new_err(format!("token ids of shape {shape:?}; one prompt (T) is expected"))),
        }
    }
}

/// The items of a list or tuple.
fn items<'py>(value: &Bound<'py, PyAny>) -> PyResult<Option<Vec<Bound<'py, PyAny>>>> {
    match value.is_instance_of::<PyList>() || value.is_instance_of::<PyTuple>() {
        true => value.try_iter()?.collect::<PyResult<Vec<_>>>().map(Some),
        false => Ok(None),
    }
}

/// Whether it is a number, of Python or of an array without dimensions.
fn is_number(value: &Bound<'_, PyAny>) -> PyResult<bool> {
    if value.is_instance_of::<PyString>() || items(value)?.is_some() {
        return Ok(false);
    }
    Ok(as_array(value)?.ndim() == 0)
}

/// The array of anything that is one by numpy's protocols: lists, tensors, arrays.
fn as_array<'py>(value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyUntypedArray>> {
    let numpy = value.py().import("numpy")?;
    // Some arrays are offered through DLPack alone.
    let by_dlpack = !value.hasattr("__array__")? && value.hasattr("__dlpack__")?;
    let function = if by_dlpack { "from_dlpack" } else { "asarray" };
    Ok(numpy.call_method1(function, (value,))?.cast_into::<PyUntypedArray>()?)
}

/// The shape and the numbers of an array of integers that can be token ids.
fn integers(value: &Bound<'_, PyAny>) -> PyResult<(Vec<usize>, Vec<u32>)> {
    if value.is_instance_of::<PyString>() {
        return Err(PyTypeError::new_err("token ids are expected, not a text"));
    }
    let array = as_array(value)?;
    if !matches!(array.dtype().kind(), b'i' | b'u') {
        let message = format!("token ids are integers, not {}", array.dtype());
        return Err(PyTypeError::new_err(message));
    }
    let wide = array.call_method1("astype", ("int64",))?.cast_into::<PyArrayDyn<i64>>()?;
    let wide = wide.readonly();
    let id = |&id: &i64| u32::try_from(id).map_err(|_| PyValueError::new_err(format!("{id} is no token id")));
    let ids = wide.as_array().iter().map(id).collect::<PyResult<_>>()?;
    Ok((array.shape().to_vec(), ids))
}

/// The numbers of an array `(…)` of the shape given, to which it is broadcast.
///
/// # Errors
/// TypeError for what is no array of numbers, ValueError for one that does not fit.
pub fn floats(value: &Bound<'_, PyAny>, shape: &[usize]) -> PyResult<Vec<f32>> {
    let py = value.py();
    let shape = PyTuple::new(py, shape)?;
    Ok(tensor(&py.import("numpy")?.call_method1("broadcast_to", (numbers(value)?, shape))?)?.data)
}

/// An array of numbers, or a tensor, as float32.
///
/// # Errors
/// TypeError for what is no array of numbers.
pub fn tensor(value: &Bound<'_, PyAny>) -> PyResult<HostTensor> {
    let array = numbers(value)?.call_method1("astype", ("float32",))?.cast_into::<PyArrayDyn<f32>>()?;
    let array = array.readonly();
    Ok(HostTensor { shape: array.shape().to_vec(), data: array.as_array().iter().copied().collect() })
}

fn numbers<'py>(value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyUntypedArray>> {
    // A tensor of torch that needs a gradient is none of numpy's.
    let value = match value.getattr_opt("detach")? {
        Some(detach) => detach.call0()?,
        None => value.clone(),
    };
    let array = as_array(&value)?;
    match array.dtype().kind() {
        b'i' | b'u' | b'f' | b'b' => Ok(array),
        _ => Err(PyTypeError::new_err(format!("numbers are expected, not {}", array.dtype()))),
    }
}

/// Sites by a regular expression over their names, or by a list of names.
///
/// # Errors
/// ValueError for what names no site of the model.
pub fn sites(sites: Option<&Bound<'_, PyAny>>, config: &ModelConfig) -> PyResult<Vec<Site>> {
    let Some(sites) = sites else { return Ok(config.sites()) };
    if let Ok(pattern) = sites.cast::<PyString>() {
        return config.sites_matching(pattern.to_str()?).or_raise();
    }
    sites.try_iter()?.map(|name| site(name?.cast::<PyString>()?.to_str()?, config)).collect()
}

/// The site of that name.
///
/// # Errors
/// ValueError if the model has none.
pub fn site(name: &str, config: &ModelConfig) -> PyResult<Site> {
    let site: Site = name.parse().or_raise()?;
    let known = || format!("the model has no site {name}; `model.sites` lists those that it has");
    config.sites().contains(&site).then_some(site).ok_or_else(|| PyValueError::new_err(known()))
}

/// One text, or several.
///
/// # Errors
/// TypeError for anything else.
pub fn texts(texts: &Bound<'_, PyAny>) -> PyResult<Vec<String>> {
    match texts.cast::<PyString>() {
        Ok(text) => Ok(vec![text.to_str()?.to_string()]),
        Err(_) => texts.try_iter()?.map(|text| text?.extract()).collect(),
    }
}

/// The choice that `value` names; `argument` is for the message.
///
/// # Errors
/// ValueError with the choices that there are.
pub fn choice<T: DeserializeOwned>(argument: &str, value: &str) -> PyResult<T> {
    T::deserialize(value.into_deserializer())
        .map_err(|error: serde::de::value::Error| PyValueError::new_err(format!("{argument}: {error}")))
}

/// Edits as the command line writes them, `SITE[CHANNELS]@POSITIONS=VALUE`: one, or a list.
///
/// # Errors
/// ValueError naming what is wrong.
pub fn edits(edits: Option<&Bound<'_, PyAny>>) -> PyResult<Vec<Edit>> {
    let parse = |text: &str| text.parse::<Edit>().map_err(|error| PyValueError::new_err(format!("{text}: {error}")));
    edits.map_or(Ok(Vec::new()), texts)?.iter().map(|text| parse(text)).collect()
}

/// Mean activations: a file that `gossamer record --mean` wrote, or a mapping from site names to
/// arrays `(width)`.
///
/// # Errors
/// ValueError for a site or a width that the model does not have, and those of the file.
pub fn means(means: &Bound<'_, PyAny>, model: &Pretrained) -> PyResult<BTreeMap<Site, Vec<f32>>> {
    let config = &model.model.config;
    let Ok(mapping) = means.cast::<PyDict>() else {
        return gossamer::pipelines::load_means(&means.extract::<std::path::PathBuf>()?, &model.model).or_raise();
    };
    let entry = |(name, mean): (Bound<'_, PyAny>, Bound<'_, PyAny>)| {
        let site = site(name.cast::<PyString>()?.to_str()?, config)?;
        Ok((site, floats(&mean, &[site.width(config)])?))
    };
    mapping.iter().map(entry).collect()
}

/// A metric: `"loss"`, or `("logit_diff", correct, incorrect)` with a token or text each, or with
/// a list of them, one for each prompt.
///
/// # Errors
/// ValueError for another metric, or an answer that is not one token.
pub fn metric(metric: &Bound<'_, PyAny>, model: &Pretrained) -> PyResult<Metric> {
    let wrong = || {
        let message = format!("{metric} is no metric; there are \"loss\" and (\"logit_diff\", correct, incorrect)");
        PyValueError::new_err(message)
    };
    if let Ok(name) = metric.cast::<PyString>() {
        return if name.to_str()? == "loss" { Ok(Metric::Loss) } else { Err(wrong()) };
    }
    let (name, correct, incorrect): (String, Bound<'_, PyAny>, Bound<'_, PyAny>) =
        metric.extract().map_err(|_| wrong())?;
    if name != "logit_diff" {
        return Err(wrong());
    }
    let [correct, incorrect] = [answers(&correct, model)?, answers(&incorrect, model)?];
    if correct.len() != incorrect.len() {
        let message = format!("{} correct answers, but {} incorrect ones", correct.len(), incorrect.len());
        return Err(PyValueError::new_err(message));
    }
    let pairs = correct.into_iter().zip(incorrect).map(|(correct, incorrect)| AnswerTokens { correct, incorrect });
    Ok(Metric::LogitDiff(pairs.collect()))
}

/// One answer, or a list of them.
fn answers(answers: &Bound<'_, PyAny>, model: &Pretrained) -> PyResult<Vec<u32>> {
    if let Ok(text) = answers.cast::<PyString>() {
        return Ok(vec![answer(text.to_str()?, model)?]);
    }
    if let Some(items) = items(answers)?.filter(|items| items.iter().any(|item| item.is_instance_of::<PyString>())) {
        return items.iter().map(|item| answer(item.cast::<PyString>()?.to_str()?, model)).collect();
    }
    Ok(integers(answers)?.1)
}

fn answer(text: &str, model: &Pretrained) -> PyResult<u32> {
    let tokenizer = model.tokenizer().or_raise()?;
    let tokens = tokenizer.encode(text).or_raise()?;
    match tokens[..] {
        [token] => Ok(token),
        _ => Err(PyValueError::new_err(format!("{text:?} is {} tokens; an answer is one", tokens.len()))),
    }
}

/// An array of a tensor's numbers, without a copy.
///
/// # Errors
/// ValueError if the shape does not fit the numbers.
pub fn array(py: Python<'_>, tensor: HostTensor) -> PyResult<Bound<'_, PyArrayDyn<f32>>> {
    let array = numpy::ndarray::ArrayD::from_shape_vec(tensor.shape, tensor.data);
    Ok(PyArrayDyn::from_owned_array(py, array.map_err(|e| PyValueError::new_err(e.to_string()))?))
}
