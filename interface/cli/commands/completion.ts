import type { Command } from 'commander'
import { failure } from '../../../base/errors.ts'
import type { Invocation } from '../invocation.ts'
import { print } from '../output.ts'

/** Scripts that ask `macfleet __complete` with the words typed so far, the unfinished one last. */
const scripts: Record<string, string> = {
  bash: `_macfleet() {
  local IFS=$'\\n'
  COMPREPLY=($(macfleet __complete -- "\${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
}
complete -o default -F _macfleet macfleet`,
  zsh: `#compdef macfleet
_macfleet() {
  local -a found
  found=("\${(@f)$(macfleet __complete -- "\${(@)words[2,CURRENT]}" 2>/dev/null)}")
  if [[ -n "$found" ]]; then compadd -- $found; else _files; fi
}
compdef _macfleet macfleet`,
  fish: `function __macfleet_words
  macfleet __complete -- (commandline -opc)[2..] (commandline -ct) 2>/dev/null
end
complete -c macfleet -f -a '(__macfleet_words)'`,
}

/** `macfleet completion`. */
export function define(command: Command, invocation: Invocation): void {
  command
    .argument('<shell>', Object.keys(scripts).join(', '))
    .addHelpText(
      'after',
      `
Examples:
  echo 'source <(macfleet completion bash)' >> ~/.bashrc
  macfleet completion fish > ~/.config/fish/completions/macfleet.fish`,
    )
    .action(async (shell: string) => {
      const script = Object.hasOwn(scripts, shell) ? scripts[shell] : undefined
      if (script !== undefined) return print(invocation, script)
      const detail = `there is a script for ${Object.keys(scripts).join(', ')}, not for ${shell}`
      throw failure('usageWrong', { detail, command: 'macfleet completion' })
    })
}
