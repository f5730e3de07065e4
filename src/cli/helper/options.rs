//! Options of mount(8) as arguments of `dvcfs mount`.

use std::{
    ffi::OsString,
    os::unix::ffi::{OsStrExt, OsStringExt},
};

use clap::{Arg, ArgAction};

use crate::{
    cli::exit::{Code, Failure},
    path::escape,
};

/// What mount(8), systemd and fstab say to everybody, and what every mount of ours is anyway:
/// without devices, set-user-id programs and times of access; read-only unless it has an overlay.
pub(super) const TAKEN: [&str; 42] = [
    "_netdev",
    "async",
    "atime",
    "auto",
    "comment",
    "default-permissions",
    "defaults",
    "dev",
    "diratime",
    "dirsync",
    "exec",
    "group",
    "iversion",
    "lazytime",
    "loud",
    "mand",
    "noatime",
    "noauto",
    "nodev",
    "nodiratime",
    "nofail",
    "nogroup",
    "noiversion",
    "nolazytime",
    "nomand",
    "noowner",
    "norelatime",
    "nostrictatime",
    "nosuid",
    "nouser",
    "nousers",
    "owner",
    "relatime",
    "ro",
    "rw",
    "silent",
    "strictatime",
    "suid",
    "symfollow",
    "sync",
    "user",
    "users",
];

/// Options of `dvcfs mount` that mean nothing where mount(8) starts it.
const UNFIT: [&str; 3] = ["foreground", "help", "version"];

/// The options of `dvcfs mount` that can follow `-o`, by their names there.
pub(super) fn ours(grammar: &clap::Command) -> impl Iterator<Item = (&str, &Arg)> {
    let mount = grammar.find_subcommand("mount").into_iter();
    let named = mount.flat_map(clap::Command::get_arguments);
    let named = named.filter_map(|arg| Some((arg.get_long()?, arg)));
    named.filter(|(name, _)| !UNFIT.contains(name))
}

/// The arguments of `dvcfs mount` that say the same as these words after `-o`. Of two options of
/// one name the later counts. What nobody knows goes to `unknown`, which may refuse it.
///
/// The grammar must be built, so that options of every command are among those of `mount`.
pub(super) fn translate(
    grammar: &clap::Command,
    words: &[OsString],
    unknown: impl Fn(Failure) -> Result<(), Failure>,
) -> Result<Vec<OsString>, Failure> {
    let mut arguments: Vec<(String, OsString)> = Vec::new();
    for word in words.iter().flat_map(|words| split(words.as_bytes())) {
        let (name, value) = name_and_value(&word);
        match ours(grammar).find(|(known, _)| *known == name) {
            Some((_, arg)) => {
                arguments.retain(|(other, _)| *other != name);
                let argument = argument(arg, &name, value)?;
                arguments.push((name, argument));
            }
            None if is_taken(&name) => {}
            None => unknown(not_known(grammar, &word, &name))?,
        }
    }
    Ok(arguments.into_iter().map(|(_, argument)| argument).collect())
}

/// Whether these words want the mount to be read-only, where they say anything of that.
pub(super) fn are_for_reading_only(words: &[OsString]) -> bool {
    let mut words = words.iter().flat_map(|words| split(words.as_bytes()));
    words.rfind(|word| word == b"ro" || word == b"rw").is_some_and(|word| word == b"ro")
}

fn argument(arg: &Arg, name: &str, value: Option<OsString>) -> Result<OsString, Failure> {
    let is_flag = matches!(arg.get_action(), ArgAction::SetTrue | ArgAction::Count);
    let wrong = |why: &str| Err(Failure::new(Code::Usage, format!("option {name} {why}")));
    let mut argument = OsString::from(format!("--{name}"));
    match value {
        Some(_) if is_flag => return wrong("takes no value"),
        None if !is_flag && arg.get_num_args().is_some_and(|count| count.min_values() > 0) => {
            return wrong("needs a value");
        }
        Some(value) => {
            argument.push("=");
            argument.push(value);
        }
        None => {}
    }
    Ok(argument)
}

/// Whether an option is for mount(8) and systemd, and nothing to us.
fn is_taken(name: &str) -> bool {
    name.starts_with("x-") || name.starts_with("X-") || TAKEN.contains(&name)
}

fn not_known(grammar: &clap::Command, word: &[u8], name: &str) -> Failure {
    let message = format!("there is no option {}", escape(word));
    let failure = Failure::new(Code::Usage, message);
    if name == "remount" {
        return failure.hint("unmount it, and mount it again with other options");
    }
    let near = |(known, _): &(&str, &Arg)| strsim::damerau_levenshtein(known, name);
    match ours(grammar).min_by_key(near).filter(|known| near(known) <= 2) {
        Some((known, _)) => failure.hint(format!("did you mean {known}?")),
        None => failure.hint("man mount.dvcfs lists them; mount -s takes any"),
    }
}

/// Splits at commas that are not between double quotes; quotes are left out.
fn split(words: &[u8]) -> Vec<Vec<u8>> {
    let mut split = vec![Vec::new()];
    let mut is_quoted = false;
    for byte in words {
        match byte {
            b'"' => is_quoted = !is_quoted,
            b',' if !is_quoted => split.push(Vec::new()),
            _ => split.last_mut().into_iter().for_each(|word| word.push(*byte)),
        }
    }
    split.retain(|word| !word.is_empty());
    split
}

/// An option's name and value. FUSE writes `allow_other` where we write `allow-other`.
fn name_and_value(word: &[u8]) -> (String, Option<OsString>) {
    let mut parts = word.splitn(2, |byte| *byte == b'=');
    let name = String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
    let name = if name.starts_with('_') { name } else { name.replace('_', "-") };
    (name, parts.next().map(|value| OsString::from_vec(value.to_vec())))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;
    use crate::cli::args::Cli;

    fn translated(words: &str) -> Result<Vec<String>, String> {
        let mut grammar = Cli::grammar();
        grammar.build();
        let arguments = translate(&grammar, &[words.into()], Err);
        let text = |argument: OsString| argument.into_string().unwrap();
        arguments
            .map(|arguments| arguments.into_iter().map(text).collect())
            .map_err(|failure| failure.to_string())
    }

    #[test]
    fn our_options_become_arguments_and_those_of_others_nothing() {
        let words = "rw,noauto,_netdev,nofail,x-systemd.automount,user=ann,rev=v1,allow_other,\
                     follow=10s,cache-size=1G";
        let expected = ["--rev=v1", "--allow-other", "--follow=10s", "--cache-size=1G"];
        assert_eq!(translated(words).unwrap(), expected);
    }

    #[test]
    fn the_last_of_one_name_counts_and_quotes_hold_commas_together() {
        assert_eq!(translated("rev=a,rev=b").unwrap(), ["--rev=b"]);
        assert_eq!(translated("cache-dir=\"/a,b\",,").unwrap(), ["--cache-dir=/a,b"]);
        assert_eq!(translated("follow").unwrap(), ["--follow"]);
        let label = "context=\"system_u:object_r:var_t:s0:c1,c2\",nosymfollow";
        let expected = ["--context=system_u:object_r:var_t:s0:c1,c2", "--nosymfollow"];
        assert_eq!(translated(label).unwrap(), expected);
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        let said = |words: &str| translated(words).unwrap_err();
        assert_eq!(said("folow"), "error: there is no option folow\nhint: did you mean follow?");
        assert!(said("passwd=x").starts_with("error: there is no option passwd=x\nhint: man"));
        assert!(said("foreground").starts_with("error: there is no option foreground\n"));
        assert!(said("remount").contains("mount it again"));
        assert_eq!(said("rev"), "error: option rev needs a value");
        assert_eq!(said("allow_other=1"), "error: option allow-other takes no value");
    }

    #[test]
    fn the_last_word_on_reading_and_writing_counts() {
        for (words, expected) in [("rw,ro,a=ro", true), ("ro,rw", false), ("a=ro", false)] {
            assert_eq!(are_for_reading_only(&[words.into()]), expected, "{words}");
        }
    }

    #[test]
    fn words_that_are_no_text_are_passed_on_or_named() {
        let mut grammar = Cli::grammar();
        grammar.build();
        let word = |word: &[u8]| OsStr::from_bytes(word).to_owned();
        let passed = translate(&grammar, &[word(b"cache-dir=/\xff")], Err).unwrap();
        assert_eq!(passed, [word(b"--cache-dir=/\xff")]);
        assert!(translate(&grammar, &[word(b"\xff")], Err).is_err());
    }

    #[test]
    fn no_option_is_both_ours_and_taken() {
        let mut grammar = Cli::grammar();
        grammar.build();
        assert!(ours(&grammar).all(|(name, _)| !is_taken(name)));
        assert!(ours(&grammar).any(|(name, _)| name == "cache-dir"));
    }
}
