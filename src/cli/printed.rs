//! `trailhound completions` and `trailhound man`: what packagers and shells want to have printed.

use clap::Command;
use clap_complete::Shell;

use super::{Failure, say};

pub(super) fn completions(mut command: Command, shell: Shell) -> Result<(), Failure> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut command, "trailhound", &mut text);
    print(&text)
}

/// One page for all: the commands that have commands of their own are told with these.
pub(super) fn man(command: &Command) -> Result<(), Failure> {
    let mut text = Vec::new();
    let mut command = command.clone().disable_help_flag(false);
    command.build();
    let failed = |error| Failure::at("cannot write the manual page", error);
    clap_mangen::Man::new(command.clone()).render(&mut text).map_err(failed)?;
    commands(&command, "trailhound", &mut text).map_err(failed)?;
    print(&text)
}

fn commands(of: &Command, path: &str, text: &mut Vec<u8>) -> std::io::Result<()> {
    for command in of.get_subcommands().filter(|command| !command.is_hide_set()) {
        let path = format!("{path} {}", command.get_name());
        let page = clap_mangen::Man::new(command.clone());
        text.extend(format!(".SH \"{}\"\n", path.to_uppercase()).bytes());
        page.render_description_section(text)?;
        page.render_options_section(text)?;
        page.render_extra_section(text)?;
        commands(command, &path, text)?;
    }
    Ok(())
}

fn print(text: &[u8]) -> Result<(), Failure> {
    say(String::from_utf8_lossy(text).trim_end())
}
