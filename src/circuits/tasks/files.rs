//! Opening files.

use super::{TaskSpec, answers};

/// ` as` after `with open(...)`, or not after an assignment.
///
/// The file is the same in both. An assignment's line ends after the call, and most tokenizers write the bracket and the line's end as one,
/// many the file's closing quote with them: then the question is asked that much earlier, a bracket (and ` as` after it) against a bracket
/// with the line's end.
pub(super) const WITH_AS: TaskSpec = TaskSpec {
    name: "with_as",
    description: "` as` after `with open(...)`, or the line's end after an assignment",
    same_length: false,
    variants: &[
        answers("{q})", " as", "\n"),
        answers("{q}", ")", ")\n"),
        answers("", "{q})", "{q})\n"),
        answers("", "{q}", "{q})\n"),
    ],
    train: &[
        "«with|{handle} =» open({q}{read}{ext}▮{q}«) as {handle}:\n    {next}|)\n{next}»",
        "def {func}({int}, {str}):\n    «with|{handle} =» open({q}{read}{ext}▮{q}«) as {handle}:\n        {next}|)\n    {next}»",
        "«with|{handle} =» open({q}data/{read}{ext}▮{q}«) as {handle}:\n    {next}|)\n{next}»",
        "for {elem} in {strs}:\n    «with|{handle} =» open({q}{read}{ext}▮{q}«) as {handle}:\n        {next}|)\n    {next}»",
        "if {flag}:\n    «with|{handle} =» open({q}{read}{ext}▮{q}«) as {handle}:\n        {next}|)\n    {next}»",
    ],
    test: &[
        "def {func}({strs}):\n    {int} = {num}\n    «with|{handle} =» open({q}{read}{ext}▮{q}«) as {handle}:\n        {next}|)\n    {next}»",
        "«with|{handle} =» open({q}files/{read}{ext}▮{q}«) as {handle}:\n    {next}|)\n{next}»",
        "if {int} > {num}:\n    «with|{handle} =» open({q}{read}{ext}▮{q}«) as {handle}:\n        {next}|)\n    {next}»",
    ],
    fixed: None,
};

/// The mode `r` or `w`, by the file's name.
///
/// The prompts end after the mode's opening quote and differ in the file's stem alone: one that the generator only ever reads, or only
/// ever writes. Pairs whose stems have not equally many tokens are skipped.
pub(super) const WITH_OPEN: TaskSpec = TaskSpec {
    name: "with_open",
    description: "mode `'r'` or `'w'`, by the file's name",
    same_length: true,
    variants: &[answers("", "r", "w")],
    train: &[
        "with open({q}«{read}|{write}»{ext}{q}, {q}▮«r|w»{q}) as {handle}:\n    {next}",
        "{handle} = open({q}«{read}|{write}»{ext}{q}, {q}▮«r|w»{q})\n{next}",
        "with open({q}data/«{read}|{write}»{ext}{q}, {q}▮«r|w»{q}) as {handle}:\n    {next}",
        "if {flag}:\n    with open({q}«{read}|{write}»{ext}{q}, {q}▮«r|w»{q}) as {handle}:\n        {next}",
        "with open({q}{thing}_«{read}|{write}»{ext}{q}, {q}▮«r|w»{q}) as {handle}:\n    {next}",
    ],
    test: &[
        "def {func}({str}, {int}):\n    with open({q}«{read}|{write}»{ext}{q}, {q}▮«r|w»{q}) as {handle}:\n        {next}",
        "with open({q}files/«{read}|{write}»{ext}{q}, {q}▮«r|w»{q}) as {handle}:\n    {next}",
        "for {elem} in {strs}:\n    with open({q}«{read}|{write}»{ext}{q}, {q}▮«r|w»{q}) as {handle}:\n        {next}",
    ],
    fixed: None,
};
