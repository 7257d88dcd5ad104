// SPDX-License-Identifier: Apache-2.0
#include <CLI/CLI.hpp>

#include "agent/cli/subcommand.hpp"

namespace twill::cli {

namespace {

/// "--all --help -h": every spelling of every option.
std::string option_words(const CLI::App& app)
{
    std::string words;
    for (const auto* option : app.get_options()) {
        for (const auto& name : option->get_snames()) words += "-" + name + " ";
        for (const auto& name : option->get_lnames()) words += "--" + name + " ";
    }
    return words;
}

/// What may stand in the place of the first argument.
std::string argument_words(std::string_view subcommand)
{
    if (subcommand == "nat") return "list stats trace ";
    if (subcommand == "migrate") return "status ";
    return subcommand == "completion" ? "bash " : "";
}

} // namespace

Exit cmd_completion(const Env& env)
{
    if (env.options.shell != "bash")
        return fail(env, Exit::usage, "completion \"" + env.options.shell + "\": allowed: bash");
    std::string names;
    std::string cases;
    for (const auto* sub : env.app.get_subcommands([](CLI::App*) { return true; })) {
        names += sub->get_name() + " ";
        cases += "        " + sub->get_name() + ") words+=\" " + argument_words(sub->get_name()) + option_words(*sub) +
                 "\" ;;\n";
    }
    env.out << "# bash completion for twillctl: source <(twillctl completion bash)\n"
               "_twillctl()\n"
               "{\n"
               "    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]} command=\"\" word\n"
               "    case $previous in\n"
               "        -o|--output) mapfile -t COMPREPLY < <(compgen -W 'table json' -- \"$current\"); return ;;\n"
               "        --socket|--bpf-root) mapfile -t COMPREPLY < <(compgen -f -- \"$current\"); return ;;\n"
               "    esac\n"
               "    for word in \"${COMP_WORDS[@]:1:COMP_CWORD-1}\"; do\n"
               "        case \" "
            << names
            << "\" in *\" $word \"*) command=$word; break ;; esac\n"
               "    done\n"
               "    local words='"
            << option_words(env.app)
            << "'\n"
               "    case $command in\n"
               "        '') words+=' "
            << names << "' ;;\n"
            << cases
            << "    esac\n"
               "    mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$current\")\n"
               "}\n"
               "complete -F _twillctl twillctl\n";
    return Exit::ok;
}

} // namespace twill::cli
