//! `kms completions`

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::Cli;
use crate::error::Failure;
use crate::output::Output;

/// Prints what makes a shell complete the arguments of this command
///
///     bash        source <(kms completions bash), in ~/.bashrc
///     zsh         kms completions zsh > "${fpath[1]}/_kms"
///     fish        kms completions fish > ~/.config/fish/completions/kms.fish
///     powershell  kms completions powershell | Out-String | Invoke-Expression, in $PROFILE
///     elvish      eval (kms completions elvish | slurp), in rc.elv
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct Completions {
    /// Of which shell
    #[arg(value_enum, value_name = "SHELL")]
    shell: Shell,
}

impl Completions {
    pub fn run(&self, output: &mut Output) -> Result<(), Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "kms", &mut script);
        output.text(&String::from_utf8_lossy(&script))
    }
}
