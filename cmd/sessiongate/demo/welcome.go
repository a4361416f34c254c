package demo

import (
	"fmt"
	"io"
	"os"
	"strings"
)

// welcome prints where to go and what to try.
func (w *world) welcome(out io.Writer, moved bool) {
	bold, dim, accent, plain := styles(out)
	var b strings.Builder
	fmt.Fprintf(&b, "\n  %ssessiongate%s demo\n\n", bold, plain)
	if moved {
		fmt.Fprintf(&b, "  %sPort 8080 is taken, so this is on a free one.%s\n\n", dim, plain)
	}
	line := func(name, value, note string) {
		fmt.Fprintf(&b, "  %s%-9s%s %s%s%s%s\n", dim, name, plain, value, dim, note, plain)
	}
	line("Open", accent+w.origin+plain, "")
	names := make([]string, len(users))
	for i, u := range users {
		names[i] = u.Name
	}
	line("Log in", "as "+strings.Join(names[:len(names)-1], ", ")+" or "+names[len(names)-1], " (no password)")
	b.WriteString("\n")
	for i, step := range []string{
		"see each call arrive at the API with a token that this browser never had",
		"watch a fresh token take over every 30 seconds",
		"fire 50 calls at expiry: one refresh serves them all",
		"take the provider down: nobody is logged out",
		"log out in one tab, at the provider or from another browser: all that is open turns at once",
	} {
		name := ""
		if i == 0 {
			name = "Try"
		}
		line(name, "· "+step, "")
	}
	b.WriteString("\n")
	line("Provider", w.issuer, "")
	line("API", w.api, "")
	line("Data", w.dir, " (removed at the end)")
	fmt.Fprintf(&b, "\n  %sCtrl-C ends it and leaves nothing behind.%s\n\n", dim, plain)
	io.WriteString(out, b.String())
}

// styles are escape sequences for a terminal, and empty for anything else or
// when the user wants none (https://no-color.org).
func styles(out io.Writer) (bold, dim, accent, plain string) {
	file, ok := out.(*os.File)
	if !ok || os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" {
		return
	}
	if info, err := file.Stat(); err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return
	}
	return "\x1b[1m", "\x1b[2m", "\x1b[1;4;36m", "\x1b[0m"
}
