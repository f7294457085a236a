//! Quotes, strings that grow, sets, f-strings.

use super::{TaskSpec, answers};

/// Close a string with `')` or `")`, by how it opened.
///
/// The two prompts differ in the opening quote alone. Most tokenizers write the line's end with the bracket, so `')` and `")` alone are
/// right only for the few that do not; the smallest write the quote apart.
pub(super) const SINGLE_DOUBLE_QUOTE: TaskSpec = TaskSpec {
    name: "single_double_quote",
    description: "close a string with `')` or `\")`, by how it opened",
    same_length: true,
    variants: &[answers("", "')", "\")"), answers("", "')\n", "\")\n"), answers("", "'", "\"")],
    train: &[
        "print(«'|\"»{text}▮«'|\"»)\n{next}",
        "{strs}.append(«'|\"»{text}▮«'|\"»)\n{next}",
        "{str} = input(«'|\"»{text}▮«'|\"»)\n{next}",
        "{set}.add(«'|\"»{text}▮«'|\"»)\n{next}",
        "logging.info(«'|\"»{text}▮«'|\"»)\n{next}",
        "if {flag}:\n    print(«'|\"»{text}▮«'|\"»)\n    {next}",
    ],
    test: &[
        "{int} = len(«'|\"»{text}▮«'|\"»)\n{next}",
        "logging.warning(«'|\"»{text}▮«'|\"»)\n{next}",
        "for {elem} in {ints}:\n    print(«'|\"»{text}▮«'|\"»)\n    {next}",
        "if {int} > {num}:\n    raise ValueError(«'|\"»{text}▮«'|\"»)\n{next}",
    ],
    fixed: None,
};

const GROW: &[super::AnswerVariant] = &[answers("", ".add", " +="), answers("", ".", " +="), answers("", ".", " ")];
const GROW_TRAIN: &[&str] = &[
    "{grow} = «set()|\"\"»\nfor {elem} in {strs}:\n    {grow}▮«.add({elem})| += {elem}»\n{next}",
    "{grow} = «set()|''»\nfor {elem} in {strs}:\n    if {elem} != '{label}':\n        {grow}▮«.add({elem})| += {elem}»\n{next}",
    "{grow} = «set()|''»\n{int} = {num}\nfor {elem} in {strs}:\n    {grow}▮«.add({elem})| += {elem}»\n{next}",
    "{grow} = «set()|\"\"»\n{grow}▮«.add('{label}')| += '{label}'»\n{next}",
    "{int} = 0\n{grow} = «set()|\"\"»\nwhile {int} < {num}:\n    {grow}▮«.add(str({int}))| += str({int})»\n    {next}",
];
const GROW_TEST: &[&str] = &[
    "{grow} = «set()|''»\nif {flag}:\n    {grow}▮«.add({str})| += {str}»\n{next}",
    "{grow} = «set()|\"\"»\nfor {elem} in {strs}:\n    {int} += 1\n    {grow}▮«.add({elem})| += {elem}»\n{next}",
    "{grow} = «set()|''»\n{strs} = []\n{grow}▮«.add({str})| += {str}»\n{next}",
];

/// `.add` or `+=` on a variable that began as `set()` or as an empty string.
///
/// The prompts differ in that first value alone; the variable's name fits both. A tokenizer without `.add` writes `.` first.
pub(super) const SET_OR_STRING: TaskSpec = TaskSpec {
    name: "set_or_string",
    description: "`.add` or `+=` on a variable initialised with `set()` or `\"\"`",
    same_length: false,
    variants: GROW,
    train: GROW_TRAIN,
    test: GROW_TEST,
    fixed: None,
};

/// The same, the variable always called `current`.
pub(super) const SET_OR_STRING_FIXEDVARNAME: TaskSpec = TaskSpec {
    name: "set_or_string_fixedvarname",
    description: "`.add` or `+=` on a variable initialised with `set()` or `\"\"`, always called `current`",
    fixed: Some(("grow", "current")),
    ..SET_OR_STRING
};

/// A brace, or the end of plain text, by whether the string is an f-string.
///
/// The prompts differ in the `f` alone, which can cost a token. Of all that may follow plain text its end is the commonest single token,
/// and one that cannot come in an f-string before any brace.
pub(super) const FSTRING_BRACE: TaskSpec = TaskSpec {
    name: "fstring_brace",
    description: "`{name}` or the end of the text, by whether the string is an f-string",
    same_length: false,
    variants: &[
        answers("", " {", "{q})"),
        answers("", " {", "{q})\n"),
        answers("", " {", "{q}"),
        answers("", " ", "{q}"),
    ],
    train: &[
        "print(«f|»{q}{text}▮« {{int}}|»{q})\n{next}",
        "{strs}.append(«f|»{q}{text}▮« {{str}}|»{q})\n{next}",
        "if {flag}:\n    print(«f|»{q}{text}▮« {{str}}|»{q})\n    {next}",
        "{int} = {num}\nprint(«f|»{q}{text}▮« {{int}}|»{q})\n{next}",
    ],
    test: &[
        "for {elem} in {strs}:\n    print(«f|»{q}{text}▮« {{elem}}|»{q})\n    {next}",
        "if {int} > {num}:\n    {strs}.append(«f|»{q}{text}▮« {{int}}|»{q})\n    {next}",
        "while {flag}:\n    print(«f|»{q}{text}▮« {{str}}|»{q})\n    {next}",
    ],
    fixed: None,
};
