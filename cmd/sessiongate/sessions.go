package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"mime"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"sessiongate/cmd/sessiongate/config"
)

// listSessions prints who is logged in at a running gateway.
func listSessions(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	f := newFlags("sessions list", stderr)
	app := f.String("app", "", "only of the app with this `origin`")
	sub := f.String("sub", "", "only of the user with this `sub`")
	raw := f.Bool("json", false, "print what the gateway says, as JSON")
	path, err := configFlag(f, args)
	if err != nil {
		return err
	}
	o, err := newOperator(path)
	if err != nil {
		return err
	}
	body, err := o.call(ctx, http.MethodGet, sessionsPath, query(*app, *sub))
	if err != nil {
		return err
	}
	if *raw {
		_, err := stdout.Write(body)
		return err
	}
	var list struct{ Sessions []listedSession }
	if err := json.Unmarshal(body, &list); err != nil {
		return fmt.Errorf("sessions: the answer of %s is not a list: %w", o.where, err)
	}
	printSessions(stdout, list.Sessions)
	return nil
}

func printSessions(w io.Writer, all []listedSession) {
	if len(all) == 0 {
		fmt.Fprintln(w, "no sessions")
		return
	}
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(table, "ID\tAPP\tSUB\tCREATED\tLAST SEEN\tADDRESS\tBROWSER")
	for _, s := range all {
		fmt.Fprintln(table, strings.Join([]string{
			harmless(s.ID), harmless(s.App), harmless(s.Sub), moment(s.CreatedAt), moment(s.LastSeenAt), harmless(s.Address), harmless(s.UserAgent),
		}, "\t"))
	}
	table.Flush()
}

// harmless makes what came from outside fit for a terminal and a table: control
// characters, and those that turn the direction of the text, are replaced.
func harmless(text string) string {
	clean := strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return unicode.ReplacementChar
		}
		return r
	}, text)
	return cmp.Or(clean, "-")
}

func moment(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05Z") }

// revokeSessions ends one session, or all of a user's in an app.
func revokeSessions(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	f := newFlags("sessions revoke", stderr)
	app := f.String("app", "", "with -sub: the app's `origin`")
	sub := f.String("sub", "", "with -app: the user's `sub`")
	path := f.String("config", "", "the configuration `file`, required")
	ids, args := takeDashed(args)
	more, err := f.split(args)
	if err != nil {
		return err
	}
	ids = append(ids, more...)
	switch {
	case *path == "":
		return f.misused("-config FILE is missing")
	case len(ids) > 1:
		return f.misused(fmt.Sprintf("one ID at a time, not %d", len(ids)))
	case len(ids) == 1 && (*app != "" || *sub != ""):
		return f.misused("an ID needs neither -app nor -sub")
	case len(ids) == 0 && (*app == "" || *sub == ""):
		return f.misused("say which: the ID of a session, as sessions list prints it, or -app and -sub together")
	}
	o, err := newOperator(*path)
	if err != nil {
		return err
	}
	n := 1
	if len(ids) == 1 {
		_, err = o.call(ctx, http.MethodDelete, sessionsPath+"/"+url.PathEscape(ids[0]), nil)
	} else {
		n, err = o.endAll(ctx, *app, *sub)
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "ended %s\n", count(n, "session"))
	return nil
}

// shortestID is longer than any flag.
const shortestID = 32

// takeDashed takes IDs out that begin with a dash, which package flag would take
// for flags.
func takeDashed(args []string) (ids, rest []string) {
	for i, arg := range args {
		isValue := i > 0 && slices.Contains([]string{"-app", "-sub", "-config", "--app", "--sub", "--config"}, args[i-1])
		if !isValue && strings.HasPrefix(arg, "-") && len(arg) >= shortestID && !strings.Contains(arg, "=") {
			ids = append(ids, arg)
			continue
		}
		rest = append(rest, arg)
	}
	return ids, rest
}

// query names whose sessions are meant; what is empty limits nothing.
func query(app, sub string) url.Values {
	q := make(url.Values)
	if app != "" {
		q.Set("app", app)
	}
	if sub != "" {
		q.Set("sub", sub)
	}
	return q
}

// operator calls the admin listener of a running gateway.
type operator struct {
	client *http.Client
	where  string // for messages
	host   string
	token  config.Secret
}

// operatorTimeout leaves the gateway the time to end a user's sessions.
const operatorTimeout = endAllTimeout + 10*time.Second

// newOperator takes the way that a configuration offers: the socket, or the
// token. A fault elsewhere in it is not minded, as by healthcheck: the variables
// of the gateway's environment may be unknown here.
func newOperator(path string) (*operator, error) {
	cfg, err := config.Load(path)
	if cfg == nil {
		return nil, err
	}
	var problems config.Problems
	if errors.As(err, &problems) {
		own := slices.DeleteFunc(slices.Clone(problems), func(p config.Problem) bool {
			return p.Key != "admin" && !strings.HasPrefix(p.Key, "admin.")
		})
		if len(own) > 0 {
			return nil, own
		}
	}
	admin := cfg.Admin
	transport := &http.Transport{} // no proxy: the gateway is on this machine
	o := &operator{client: &http.Client{
		Transport: transport, Timeout: operatorTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // the gateway sends nobody on
	}}
	switch {
	case admin.Socket != "":
		o.where, o.host = string(admin.Socket), "localhost"
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", string(admin.Socket))
		}
	case admin.Token != "":
		o.where, o.host, o.token = reachable(admin.Listen), reachable(admin.Listen), admin.Token
	default:
		return nil, usageError(fmt.Sprintf("sessiongate: %s has neither admin.socket nor admin.token, so that nobody is let at sessions:\n"+
			"set admin: {socket: /run/sessiongate/admin.sock} and restart the gateway, or set admin.token", path))
	}
	return o, nil
}

func (o *operator) endAll(ctx context.Context, app, sub string) (int, error) {
	body, err := o.call(ctx, http.MethodDelete, sessionsPath, query(app, sub))
	if err != nil {
		return 0, err
	}
	var answer struct{ Ended int }
	if err := json.Unmarshal(body, &answer); err != nil {
		return 0, fmt.Errorf("sessions: the answer of %s cannot be read: %w", o.where, err)
	}
	return answer.Ended, nil
}

// call returns the body of an answer that is no error.
func (o *operator) call(ctx context.Context, method, path string, q url.Values) ([]byte, error) {
	target := (&url.URL{Scheme: "http", Host: o.host}).String() + path
	if len(q) > 0 {
		target += "?" + q.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, target, nil)
	if err != nil {
		return nil, fmt.Errorf("sessions: %w", err)
	}
	if o.token != "" {
		req.Header.Set("Authorization", "Bearer "+o.token.Reveal())
	}
	res, err := o.client.Do(req)
	if err != nil {
		var failed *url.Error
		if errors.As(err, &failed) {
			err = failed.Err // the URL is no use to anybody
		}
		if errors.Is(err, fs.ErrPermission) {
			return nil, fmt.Errorf("sessions: %w: the socket is for the gateway's user alone", err)
		}
		return nil, fmt.Errorf("sessions: the gateway does not answer at %s: %w; does it run by this configuration?", o.where, err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return nil, fmt.Errorf("sessions: the answer of %s broke off: %w", o.where, err)
	}
	if res.StatusCode >= 300 {
		return nil, o.failure(res, body)
	}
	return body, nil
}

// failure says what the gateway, or whoever else answers there, says.
func (o *operator) failure(res *http.Response, body []byte) error {
	var p problem
	kind, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type"))
	switch {
	case kind == "application/problem+json" && json.Unmarshal(body, &p) == nil && p.Code == "token_required":
		return fmt.Errorf("sessions: the gateway at %s has another admin.token; has it put this configuration in force?", o.where)
	case p.Code != "":
		return fmt.Errorf("sessions: %s (%s): %s", harmless(p.Title), harmless(p.Code), harmless(p.Detail))
	case res.StatusCode == http.StatusNotFound:
		return fmt.Errorf("sessions: the gateway at %s lets nobody at sessions; has it put this configuration in force?", o.where)
	}
	return fmt.Errorf("sessions: %s says %s", o.where, res.Status)
}
