use std::process::ExitCode;

fn main() -> ExitCode {
    trailhound::cli::main()
}
