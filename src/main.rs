use std::process::ExitCode;

use mimalloc::MiMalloc;

/// Planning is many small allocations, by threads that free each other's.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    oribi::cli::run()
}
