//! Loops and conditions.

use super::{TaskSpec, answers};

/// ` in` or `:` after the loop's first name.
///
/// The prompts differ in `for` and `while`; the names are good for an element as well as for a condition.
pub(super) const FOR_WHILE: TaskSpec = TaskSpec {
    name: "for_while",
    description: "` in` or `:` after the loop's first name",
    same_length: false,
    variants: &[answers("", " in", ":"), answers("", " in", ":\n"), answers("", " ", ":\n")],
    train: &[
        "«for|while» {either}▮« in {ints}|»:\n    {next}",
        "{int} = {num}\n«for|while» {either}▮« in {strs}|»:\n    {next}",
        "def {func}({ints}, {either}):\n    «for|while» {either}▮« in {ints}|»:\n        {next}",
        "if {flag}:\n    «for|while» {either}▮« in {strs}|»:\n        {next}",
        "{strs} = []\n«for|while» {either}▮« in {strs}|»:\n    {next}",
    ],
    test: &[
        "for {elem} in {ints}:\n    «for|while» {either}▮« in {strs}|»:\n        {next}",
        "while {flag}:\n    «for|while» {either}▮« in {ints}|»:\n        {next}",
        "if {int} > {num}:\n    «for|while» {either}▮« in {ints}|»:\n        {next}",
    ],
    fixed: None,
};

/// `:` after `else`, ` not` after `elif`.
///
/// The prompts differ in that word alone. A condition may begin with anything; ` not` is what the generator's mostly begin with, and it never
/// follows `else`.
pub(super) const ELSE_ELIF: TaskSpec = TaskSpec {
    name: "else_elif",
    description: "`:` after `else`, a condition's ` not` after `elif`",
    same_length: false,
    variants: &[answers("", ":", " not"), answers("", ":\n", " not"), answers("", ":\n", " ")],
    train: &[
        "if {int} > {num}:\n    {str} = '{label}'\n«else|elif»▮«| not {flag}»:\n    {next}",
        "if {str} == '{label}':\n    {int} += 1\n«else|elif»▮«| not {flag}»:\n    {next}",
        "for {elem} in {strs}:\n    if {int} < {num}:\n        {int} = 0\n    «else|elif»▮«| not {elem}»:\n        {next}",
        "if {int} == {num}:\n    print({str})\n«else|elif»▮«| not {strs}»:\n    {next}",
    ],
    test: &[
        "if {int} >= {num}:\n    {strs}.append({str})\n«else|elif»▮«| not {flag}»:\n    {next}",
        "def {func}({int}):\n    if {int} > {num}:\n        {int} -= 1\n    «else|elif»▮«| not {int}»:\n        {next}",
        "if {flag}:\n    {int} = {num}\n«else|elif»▮«| not {str}»:\n    {next}",
    ],
    fixed: None,
};

/// The line's end with its colon after an `if` statement's condition, ` else` after that of a conditional expression.
///
/// The prompts differ in what comes before the `if`: nothing, or a value and what takes it.
pub(super) const IF_TERNARY: TaskSpec = TaskSpec {
    name: "if_ternary",
    description: "`:` or ` else` after a condition, by whether the `if` is a statement or a conditional expression",
    same_length: false,
    variants: &[answers("", ":", " else"), answers("", ":\n", " else"), answers("", ":\n", " ")],
    train: &[
        "«|{str} = {str2} »if {int} > {num}▮«:\n    {next}| else {str3}\n{next}»",
        "«|{int2} = {num2} »if {flag}▮«:\n    {next}| else {num3}\n{next}»",
        "{int} = {num}\n«|print({str} »if {int} > {num2}▮«:\n    {next}| else {str2})\n{next}»",
        "for {elem} in {ints}:\n    «|{int} = {num} »if {elem} < {num2}▮«:\n        {next}| else {int2}\n    {next}»",
        "def {func}({int}, {str}):\n    «|{str2} = {str} »if {int} < {num}▮«:\n        {next}| else {str3}\n    {next}»",
    ],
    test: &[
        "«|{ints}.append({int} »if {int2} == {num}▮«:\n    {next}| else {num2})\n{next}»",
        "while {int} > {num}:\n    «|{str} = {str2} »if {flag}▮«:\n        {next}| else {str3}\n    {next}»",
        "for {elem} in {strs}:\n    «|{int} = {num} »if {flag}▮«:\n        {next}| else {num2}\n    {next}»",
    ],
    fixed: None,
};

/// Two steps of indentation after a `for` line within a function, one after the same line at the left margin.
///
/// The prompts differ in the `for` line's own indentation alone. The last space before a word belongs to the word's own token, so the answers
/// are seven spaces and three.
pub(super) const INDENT_FOR: TaskSpec = TaskSpec {
    name: "indent_for",
    description: "indentation after a `for` line, by its own",
    same_length: false,
    variants: &[answers("", "       ", "   "), answers("", "        ", "    ")],
    train: &[
        "def {func}({ints}):\n    {int} = {num}\n«    |»for {elem} in {ints}:\n▮«    |»    {next}",
        "def {func}({strs}, {int}):\n    {int} += {num}\n«    |»for {elem} in {strs}:\n▮«    |»    {next}",
        "def {func}({int}):\n    print({int})\n«    |»for {idx} in range({int}):\n▮«    |»    {next}",
        "def {func}({strs}):\n    {int} = len({strs})\n«    |»for {elem} in {strs}:\n▮«    |»    {next}",
    ],
    test: &[
        "def {func}({ints}, {str}):\n    {str2} = {str}\n«    |»for {elem} in {ints}:\n▮«    |»    {next}",
        "def {func}({int}, {strs}):\n    {strs}.append('{label}')\n«    |»for {elem} in {strs}:\n▮«    |»    {next}",
        "def {func}({ints}):\n    {int} = {num}\n«    |»for {idx}, {elem} in enumerate({ints}):\n▮«    |»    {next}",
    ],
    fixed: None,
};

/// `==` or `=` after a name, by whether the line began with `if`.
///
/// The prompts differ in the `if` alone.
pub(super) const IF_EQUALS: TaskSpec = TaskSpec {
    name: "if_equals",
    description: "`==` or `=` after a name, by whether the line began with `if`",
    same_length: false,
    variants: &[answers("", " ==", " =")],
    train: &[
        "«if |»{int}▮« == {num2}:\n    {next}| = {num2}\n{next}»",
        "{int} = {num}\n«if |»{int}▮« == {num2}:\n    {next}| = {num2}\n{next}»",
        "for {elem} in {ints}:\n    «if |»{int}▮« == {elem}:\n        {next}| = {elem}\n    {next}»",
        "def {func}({str}, {int}):\n    «if |»{str}▮« == '{label}':\n        {next}| = '{label}'\n    {next}»",
        "{str} = '{label}'\n«if |»{str}▮« == '{labelx}':\n    {next}| = '{labelx}'\n{next}»",
    ],
    test: &[
        "if {flag}:\n    «if |»{str}▮« == '{label}':\n        {next}| = '{label}'\n    {next}»",
        "while {flag}:\n    «if |»{int}▮« == {num}:\n        {next}| = {num}\n    {next}»",
        "for {idx} in range({num}):\n    «if |»{int}▮« == {idx}:\n        {next}| = {idx}\n    {next}»",
    ],
    fixed: None,
};

/// `enumerate` or `range`, by one loop variable or two.
///
/// The prompts differ in the second variable alone. A small tokenizer writes both words in pieces; their first pieces are the answers then.
pub(super) const ENUMERATE_RANGE: TaskSpec = TaskSpec {
    name: "enumerate_range",
    description: "`enumerate` or `range`, by two loop variables or one",
    same_length: false,
    variants: &[
        answers("", " enumerate", " range"),
        answers("", " enum", " range"),
        answers("", " en", " range"),
        answers("", " e", " range"),
        answers("", " ", " range"),
        answers("", " enumerate", " ran"),
        answers("", " enum", " ran"),
        answers("", " en", " ran"),
        answers("", " e", " ran"),
        answers("", " ", " ran"),
        answers("", " enumerate", " ra"),
        answers("", " enum", " ra"),
        answers("", " en", " ra"),
        answers("", " e", " ra"),
        answers("", " ", " ra"),
        answers("", " enumerate", " r"),
        answers("", " enum", " r"),
        answers("", " en", " r"),
        answers("", " e", " r"),
        answers("", " ", " r"),
        answers("", " enumerate", " "),
        answers("", " enum", " "),
        answers("", " en", " "),
        answers("", " e", " "),
        answers(" ", "en", "r"),
        answers(" ", "e", "r"),
    ],
    train: &[
        "for {idx}«, {elem}|» in▮« enumerate({strs})| range({num})»:\n    {next}",
        "{int} = {num}\nfor {idx}«, {elem}|» in▮« enumerate({ints})| range({int})»:\n    {next}",
        "def {func}({strs}):\n    for {idx}«, {elem}|» in▮« enumerate({strs})| range(len({strs}))»:\n        {next}",
        "if {flag}:\n    for {idx}«, {elem}|» in▮« enumerate({strs})| range({num})»:\n        {next}",
    ],
    test: &[
        "for {elem2} in {ints}:\n    for {idx}«, {elem}|» in▮« enumerate({strs})| range({num})»:\n        {next}",
        "def {func}({ints}, {int}):\n    for {idx}«, {elem}|» in▮« enumerate({ints})| range({int})»:\n        {next}",
        "while {flag}:\n    for {idx}«, {elem}|» in▮« enumerate({ints})| range({num})»:\n        {next}",
    ],
    fixed: None,
};

/// The line's end with or without a colon after `x == True` / `x = True`, by the line's start.
///
/// The prompts differ in `if` and in the equals sign that goes with it: both must change for either to be Python.
pub(super) const VAR_IF: TaskSpec = TaskSpec {
    name: "var_if",
    description: "`:` or the line's end after `if x == True` / `x = True`",
    same_length: false,
    variants: &[answers("", ":\n", "\n"), answers("", ":", "\n")],
    train: &[
        "«if {flag} ==|{flag} =» True▮«:\n    {next}|\n{next}»",
        "{int} = {num}\n«if {flag} ==|{flag} =» True▮«:\n    {next}|\n{next}»",
        "for {elem} in {strs}:\n    «if {flag} ==|{flag} =» True▮«:\n        {next}|\n    {next}»",
        "def {func}({flag}):\n    «if {flag} ==|{flag} =» True▮«:\n        {next}|\n    {next}»",
        "{flag} = False\n«if {flag} ==|{flag} =» True▮«:\n    {next}|\n{next}»",
    ],
    test: &[
        "while {int} > {num}:\n    «if {flag} ==|{flag} =» True▮«:\n        {next}|\n    {next}»",
        "if {str} == '{label}':\n    «if {flag} ==|{flag} =» True▮«:\n        {next}|\n    {next}»",
        "def {func}({strs}, {flag}):\n    {int} = 0\n    «if {flag} ==|{flag} =» True▮«:\n        {next}|\n    {next}»",
    ],
    fixed: None,
};
