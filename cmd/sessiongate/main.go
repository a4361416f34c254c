// Command sessiongate is a session gateway for single-page apps: it logs users
// in with OpenID Connect, keeps every token on the server and gives the browser
// one opaque cookie.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"sessiongate/cmd/sessiongate/config"
	"sessiongate/cmd/sessiongate/demo"
)

// command is one of the words, or two, that may follow sessiongate.
type command struct {
	name, arguments, about string
	run                    func(ctx context.Context, args []string, stdout, stderr io.Writer) error
}

func commands() []command {
	return []command{
		{"serve", "-config FILE", "run the gateway", serve},
		{"check", "-config FILE [-online]", "tell what is wrong with a configuration, and what to do", check},
		{"demo", "[-listen ADDRESS]", "show it at work: a provider, an API and an app, with one command", runDemo},
		{"keygen", "", "print a new key for session.keys", keygen},
		{"sessions list", "-config FILE [-app ORIGIN] [-sub SUB] [-json]", "show who is logged in at a running gateway", listSessions},
		{"sessions revoke", "-config FILE ID | -app ORIGIN -sub SUB", "end a session, or all of a user's in an app", revokeSessions},
		{"migrate", "-from bolt|redis -to bolt|redis -config FILE [-bolt PATH] [-from-config FILE]", "move sessions from one store to another", migrate},
		{"healthcheck", "-config FILE [-ready]", "ask a running gateway for its health", healthcheck},
		{"version", "", "print the version", printVersion},
	}
}

// Exit codes (DESIGN.md, section 8).
const (
	exitFailed = 1
	exitUsage  = 2 // wrong usage, or a wrong configuration
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// impatience is how long after the first signal another one is taken for the
// same: a Ctrl-C can come twice, from the terminal and from a wrapper.
const impatience = time.Second

// run returns the exit code. The context of a command ends with the first
// SIGINT or SIGTERM; a second one ends the process at once.
func run(args []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, func() { time.AfterFunc(impatience, stop) })
	err := dispatch(ctx, args, stdout, stderr)
	var problems config.Problems
	var unreadable *config.Unreadable
	var usage usageError
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return 0
	case errors.As(err, &usage), errors.Is(err, demo.ErrUsage):
		fmt.Fprintf(stderr, "%v\nTry: sessiongate help\n", err)
		return exitUsage
	case errors.As(err, &problems):
		fmt.Fprintf(stderr, "%v\n", problems)
		fmt.Fprintf(stderr, "sessiongate: the configuration is refused: %s\n", count(len(problems), "problem"))
		return exitUsage
	}
	fmt.Fprintf(stderr, "sessiongate: %v\n", err)
	if errors.As(err, &unreadable) {
		return exitUsage
	}
	return exitFailed
}

func dispatch(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	if len(args) == 0 {
		printUsage(stderr)
		return usageError("sessiongate: a command is missing")
	}
	switch args[0] {
	case "help", "-h", "-help", "--help":
		printUsage(stdout)
		return nil
	case "-version", "--version":
		return printVersion(ctx, nil, stdout, stderr)
	}
	for _, c := range commands() {
		words := strings.Fields(c.name)
		if len(args) >= len(words) && slices.Equal(args[:len(words)], words) {
			return c.run(ctx, args[len(words):], stdout, stderr)
		}
	}
	if args[0] == "sessions" {
		return usageError("sessiongate sessions: say what to do: list or revoke")
	}
	return usageError(fmt.Sprintf("sessiongate: there is no command %q", args[0]))
}

// usageWidth is the column where it is said what commands do.
const usageWidth = 48

func printUsage(w io.Writer) {
	fmt.Fprint(w, "sessiongate logs users of single-page apps in with OpenID Connect and keeps their tokens on the server.\n\nUsage:\n")
	for _, c := range commands() {
		usage := "  sessiongate " + strings.TrimSpace(c.name+" "+c.arguments)
		if len(usage) > usageWidth {
			fmt.Fprintln(w, usage)
			usage = ""
		}
		fmt.Fprintf(w, "%-*s %s\n", usageWidth, usage, c.about)
	}
	fmt.Fprint(w, `
To see it:            sessiongate demo
To set it up:         sessiongate keygen, then write a configuration (config.example.yaml, docs/configuration.md)
Before every change:  sessiongate check -config FILE

Exit codes: 0, 1 failed, 2 wrong usage or configuration.
`)
}

// usageError is an error of the command line.
type usageError string

func (e usageError) Error() string { return string(e) }

// flags is a flag.FlagSet whose errors are usageErrors.
type flags struct {
	*flag.FlagSet
}

func newFlags(name string, stderr io.Writer) flags {
	f := flags{flag.NewFlagSet(name, flag.ContinueOnError)}
	f.SetOutput(stderr)
	f.Usage = func() {
		for _, c := range commands() {
			if c.name == name {
				fmt.Fprintf(stderr, "Usage: sessiongate %s\n\n%s\n", strings.TrimSpace(c.name+" "+c.arguments), c.about)
			}
		}
		f.PrintDefaults()
	}
	return f
}

// parse accepts no arguments besides the flags.
func (f flags) parse(args []string) error {
	rest, err := f.split(args)
	if err == nil && len(rest) > 0 {
		return f.misused(fmt.Sprintf("unexpected argument %q", rest[0]))
	}
	return err
}

// split parses flags and returns the arguments between and behind them.
func (f flags) split(args []string) (rest []string, err error) {
	for {
		err := f.Parse(args)
		switch {
		case errors.Is(err, flag.ErrHelp):
			return nil, err
		case err != nil:
			return nil, f.misused(err.Error())
		case f.NArg() == 0:
			return rest, nil
		}
		rest, args = append(rest, f.Arg(0)), f.Args()[1:]
	}
}

func (f flags) misused(how string) error { return usageError("sessiongate " + f.Name() + ": " + how) }

// configFlag parses the flags of a command that needs a configuration, and
// returns its path.
func configFlag(f flags, args []string) (string, error) {
	path := f.String("config", "", "the configuration `file`, required")
	if err := f.parse(args); err != nil {
		return "", err
	}
	if *path == "" {
		return "", f.misused("-config FILE is missing")
	}
	return *path, nil
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// runDemo gives the demo a gateway.
func runDemo(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	return demo.Run(ctx, args, stdout, stderr, func(ctx context.Context, text []byte, dir string, ready func(string)) error {
		return serveText(ctx, text, dir, stderr, ready)
	})
}
