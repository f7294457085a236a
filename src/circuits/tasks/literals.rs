//! Brackets, braces, and two variables that change places.

use super::{TaskSpec, answers};

/// `:` or `,` after the first word, by whether it opens a dict or a list.
///
/// The prompts differ in the bracket alone: a second key would already be given away by what follows the first. Byte-pair tokenizers write
/// the key's closing quote and the mark after it as one, and some only one of the two brackets together with the quote after it.
pub(super) const BRACKET_BRACE: TaskSpec = TaskSpec {
    name: "bracket_brace",
    description: "`:` or `,` after a key, by whether we are in a dict or a list",
    same_length: false,
    variants: &[answers("{q}", ":", ","), answers("", "{q}:", "{q},")],
    train: &[
        "{coll} = «{|[»{q}{label}▮{q}«: {num}}|, {q}{labelx}{q}]»\n{next}",
        "print(«{|[»{q}{label}▮{q}«: {num}})|, {q}{labelx}{q}])»\n{next}",
        "def {func}():\n    return «{|[»{q}{label}▮{q}«: {num}}|, {q}{labelx}{q}]»\n\n\n{next}",
        "{int} = {num}\n{coll} = «{|[»{q}{label}▮{q}«: {int}}|, {q}{labelx}{q}]»\n{next}",
        "if {flag}:\n    {coll} = «{|[»{q}{label}▮{q}«: {num}}|, {q}{labelx}{q}]»\n{next}",
    ],
    test: &[
        "{coll} = «{|[»\n    {q}{label}▮{q}«: {num},\n}|,\n    {q}{labelx}{q},\n]»\n{next}",
        "for {elem} in «{|[»{q}{label}▮{q}«: {num}}|, {q}{labelx}{q}]»:\n    {next}",
        "while {flag}:\n    {coll} = «{|[»{q}{label}▮{q}«: {num}}|, {q}{labelx}{q}]»\n    {next}",
    ],
    fixed: None,
};

/// `]]` or `]`, by the list's depth.
///
/// The prompts differ in one opening bracket. Many tokenizers write the last bracket and the line's end as one, and no `]]`: then it is
/// `]` (one more follows) against `]` with the line's end. The smallest write every bracket apart, and are asked for the second.
pub(super) const BRACKET_COUNTING: TaskSpec = TaskSpec {
    name: "bracket_counting",
    description: "`]]` or `]`, by nesting depth of the list",
    same_length: false,
    variants: &[answers("", "]]", "]"), answers("", "]]\n", "]\n"), answers("", "]", "]\n"), answers("]", "]", "\n")],
    train: &[
        "{coll} = «[|»[{num}, {numx}▮«]|»]\n{next}",
        "{coll} = «[|»[{num}, {numx}, {numy}▮«]|»]\n{next}",
        "{coll} = «[|»[{int}, {int2}▮«]|»]\n{next}",
        "{int} = {num}\n{coll} = «[|»[{int}, {numx}▮«]|»]\n{next}",
        "if {flag}:\n    {coll} = «[|»[{num}, {numx}▮«]|»]\n{next}",
    ],
    test: &[
        "{coll} = «[|»[{int}, {num}, {int2}▮«]|»]\n{next}",
        "for {elem} in {ints}:\n    {coll} = «[|»[{elem}, {num}▮«]|»]\n    {next}",
        "{coll} = «[|»[{num}, {int}, {numx}, {numy}▮«]|»]\n{next}",
    ],
    fixed: None,
};

/// `x, y = y,` goes on with ` x`.
///
/// The prompts differ in the first name alone, so the answer is a name too; pairs whose names are not one token are skipped.
pub(super) const VAR_SWAP: TaskSpec = TaskSpec {
    name: "var_swap",
    description: "complete `x, y = y,` with ` x`",
    same_length: true,
    variants: &[answers("", " {a}", " {b}"), answers(" ", "{a}", "{b}")],
    train: &[
        "«{a}|{b}», {c} = {c},▮ «{a}|{b}»\n{next}",
        "{a} = {num}\n{b} = {numx}\n«{a}|{b}», {c} = {c},▮ «{a}|{b}»\n{next}",
        "if {a} > {b}:\n    «{a}|{b}», {c} = {c},▮ «{a}|{b}»\n{next}",
        "def {func}({a}, {b}, {c}):\n    «{a}|{b}», {c} = {c},▮ «{a}|{b}»\n    {next}",
        "for {elem} in {ints}:\n    «{a}|{b}», {c} = {c},▮ «{a}|{b}»\n{next}",
    ],
    test: &[
        "while {c} > {num}:\n    «{a}|{b}», {c} = {c},▮ «{a}|{b}»\n    {next}",
        "print({b}, {a})\n«{a}|{b}», {c} = {c},▮ «{a}|{b}»\n{next}",
        "{c} = {num}\nif {flag}:\n    «{a}|{b}», {c} = {c},▮ «{a}|{b}»\n{next}",
    ],
    fixed: None,
};
