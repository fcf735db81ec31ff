//! `layerstore compat` behind flags of this program, which mean nothing to the other command line.

use crate::args::CompatArgs;
use crate::failure::Failure;

pub fn run(args: &CompatArgs) -> Result<(), Failure> {
    let words: Vec<_> = args.words.iter().map(|word| word.to_string_lossy()).collect();
    Err(Failure::Setting {
        name: "compat",
        value: words.join(" "),
        reason: "compat is the first word, and flags of its own come behind it".to_owned(),
    })
}
