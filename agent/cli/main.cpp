// SPDX-License-Identifier: Apache-2.0
#include <exception>
#include <iostream>

#include "agent/cli/subcommand.hpp"

int main(int argc, char** argv)
{
    try {
        const std::vector<std::string> args(argv + 1, argv + argc);
        return twill::cli::run(args, std::cout, std::cerr, twill::cli::real_machine());
    } catch (const std::exception& error) {
        std::cerr << "twillctl: " << error.what() << '\n';
        return 70;
    }
}
