//! Signatures, constructors, lambdas, and what returns True.

use super::{TaskSpec, answers};

/// `=None` or the signature's end after the last parameter, by whether those before it have defaults.
///
/// The prompts differ in the one `=None` of the parameter before, so the positive one is longer by that.
pub(super) const FINAL_KWARG: TaskSpec = TaskSpec {
    name: "final_kwarg",
    description: "`=None` or `):` after the last parameter, by whether earlier ones have defaults",
    same_length: false,
    variants: &[answers("", "=None", "):\n"), answers("", "=", "):\n"), answers("", "=", ")")],
    train: &[
        "def {func}({str}, {int}«=None|», {strs}▮«=None|»):\n    {next}",
        "def {func}({int}«=None|», {str}▮«=None|»):\n    {next}",
        "def {func}({strs}, {flag}, {int}«=None|», {str}▮«=None|»):\n    {next}",
        "def {func}({ints}, {str}«=None|», {int}▮«=None|»):\n    {next}",
        "def {func}({attr}, {int}«=None|», {str}▮«=None|»):\n    {next}",
    ],
    test: &[
        "def {func}({strs}«=None|», {int}▮«=None|»):\n    {next}",
        "def {func}({int}, {int2}, {str}«=None|», {strs}▮«=None|»):\n    {next}",
        "def {func}({flag}, {str}«=None|», {str2}▮«=None|»):\n    {next}",
    ],
    fixed: None,
};

/// After `self.x =`, the name `x`.
///
/// The prompts differ in one name: which of two parameters the last line is about. Both names must be one token after `self.` and after
/// ` =`, so tokenizers with few whole words use short names; the pairs with others are skipped.
pub(super) const CLASS_INIT: TaskSpec = TaskSpec {
    name: "class_init",
    description: "after `self.x =`, copy the name `x`",
    same_length: true,
    variants: &[answers("", " {a}", " {b}"), answers(" ", "{a}", "{b}")],
    train: &[
        "class {class}:\n    def __init__(self, {a}, {b}):\n        self.«{a}|{b}» =▮ «{a}|{b}»\n        {next}",
        "class {class}:\n    def __init__(self, {b}, {a}):\n        self.«{a}|{b}» =▮ «{a}|{b}»\n        {next}",
        "class {class}:\n    def __init__(self, {attr}, {a}, {b}):\n        self.{attr} = {attr}\n        self.«{a}|{b}» =▮ \
         «{a}|{b}»\n        {next}",
        "class {class}:\n    def __init__(self, {c}, {b}, {a}):\n        self.{c} = {c}\n        self.«{a}|{b}» =▮ \
         «{a}|{b}»\n        {next}",
        "class {class}:\n    def __init__(self, {a}, {str}, {b}):\n        self.{str} = {str}\n        self.«{a}|{b}» =▮ \
         «{a}|{b}»\n        {next}",
    ],
    test: &[
        "class {class}:\n    def __init__(self, {a}, {c}, {b}):\n        self.{c} = {c}\n        self.«{a}|{b}» =▮ \
         «{a}|{b}»\n        {next}",
        "class {class}:\n    def __init__(self, {b}, {a}):\n        self.{ints} = []\n        self.«{a}|{b}» =▮ \
         «{a}|{b}»\n        {next}",
        "class {class}:\n    def __init__(self, {str}, {b}, {a}, {int}):\n        self.{str} = {str}\n        self.{int} = {int}\n        \
         self.«{a}|{b}» =▮ «{a}|{b}»\n        {next}",
    ],
    fixed: None,
};

/// `:` after `lambda name`, `(` after `def name`.
///
/// The same name in both; what comes before it cannot be the same, since a lambda is an expression.
pub(super) const LAMBDA_FUNC: TaskSpec = TaskSpec {
    name: "lambda_func",
    description: "`:` after `lambda name`, `(` after `def name`",
    same_length: false,
    variants: &[answers("", ":", "(")],
    train: &[
        "«{called} = lambda|def» {elem}▮«: {elem} + {num}|({param}):\n    {next}»\n{next}",
        "«{ints} = list(map(lambda|def» {elem}▮«: {elem} * {num}, {ints2}))|({param}):\n    {next}»\n{next}",
        "«{strs} = sorted({strs2}, key=lambda|def» {elem}▮«: len({elem}))|({param}):\n    {next}»\n{next}",
        "{int} = {num}\n«{called} = lambda|def» {elem}▮«: {elem} * {int}|({param}):\n    {next}»\n{next}",
    ],
    test: &[
        "«{ints} = list(filter(lambda|def» {elem}▮«: {elem} > {num}, {ints2}))|({param}):\n    {next}»\n{next}",
        "«{things}.sort(key=lambda|def» {elem}▮«: {elem}.{attr})|({param}):\n    {next}»\n{next}",
        "if {flag}:\n    «{called} = lambda|def» {elem}▮«: -{elem}|({param}):\n        {next}»\n    {next}",
    ],
    fixed: None,
};

/// `:` after `while True`, the line's end after `return True`.
///
/// The prompts differ in that one word.
pub(super) const WHILE_RETURN_TRUE: TaskSpec = TaskSpec {
    name: "while_return_true",
    description: "`:` or the line's end after `while True` / `return True`",
    same_length: false,
    variants: &[answers("", ":\n", "\n"), answers("", ":", "\n")],
    train: &[
        "def {func}({int}):\n    if {int} > {num}:\n        «while|return» True▮«:\n            {next}|\n    return False\n»",
        "def {func}({strs}):\n    for {elem} in {strs}:\n        if {elem} == '{label}':\n            «while|return» True▮«:\n                \
         {next}|\n    return False\n»",
        "def {func}({flag}):\n    if {flag}:\n        «while|return» True▮«:\n            {next}|\n    return False\n»",
        "def {func}({str}):\n    if {str} == '{label}':\n        «while|return» True▮«:\n            {next}|\n    return False\n»",
    ],
    test: &[
        "def {func}({int}, {int2}):\n    if {int} == {int2}:\n        «while|return» True▮«:\n            {next}|\n    return False\n»",
        "def {func}({ints}):\n    for {elem} in {ints}:\n        if {elem} < {num}:\n            «while|return» True▮«:\n                {next}|\n    \
         return False\n»",
        "def {func}({flag}):\n    {int} = {num}\n    if not {flag}:\n        «while|return» True▮«:\n            {next}|\n    return False\n»",
    ],
    fixed: None,
};
