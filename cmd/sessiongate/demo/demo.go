// Package demo shows the gateway at work with one command: it starts a
// development provider, a sample API and the gateway in front of a sample
// single-page app, and leaves nothing behind when it ends.
package demo

import (
	"context"
	"crypto/rand"
	"embed"
	"encoding/base64"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"sessiongate/internal/devprovider"
)

// Start runs a gateway by a configuration until ctx ends, and returns when all of
// it is closed. Relative paths in the configuration are below dir. It calls ready
// once the gateway listens.
type Start func(ctx context.Context, configYAML []byte, dir string, ready func(addr string)) error

// ErrUsage is wrapped by errors about the command line.
var ErrUsage = errors.New("demo: usage")

const (
	defaultListen  = "127.0.0.1:8080"
	accessTokenTTL = 30 * time.Second
	audience       = "sample-api"
	clientID       = "demo"
)

//go:embed spa
var spa embed.FS

// Run runs the demo until ctx ends, which is its good end.
func Run(ctx context.Context, args []string, stdout, stderr io.Writer, start Start) error {
	flags := flag.NewFlagSet("demo", flag.ContinueOnError)
	flags.SetOutput(stderr)
	listen := flags.String("listen", defaultListen, "loopback `address` of the gateway")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return fmt.Errorf("%w: %w", ErrUsage, err)
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("%w: unexpected argument %q", ErrUsage, flags.Arg(0))
	}
	// A port that was free a moment ago may be somebody's by now.
	for attempt := 1; ; attempt++ {
		err := show(ctx, *listen, stdout, start)
		if attempt == 3 || !errors.Is(err, syscall.EADDRINUSE) {
			return err
		}
	}
}

// show is one attempt to run the demo.
func show(ctx context.Context, listen string, stdout io.Writer, start Start) (err error) {
	address, moved, err := choose(listen)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "sessiongate-demo-")
	if err != nil {
		return fmt.Errorf("demo: make a temporary directory: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := unpack(filepath.Join(dir, "spa")); err != nil {
		return err
	}
	w, err := newWorld(address, dir)
	if err != nil {
		return err
	}
	defer w.close()
	return start(ctx, w.configuration(), dir, func(string) { w.welcome(stdout, moved) })
}

// choose returns the address to listen on. The default gives way to a free port
// when somebody has it; an address that was asked for does not.
func choose(listen string) (address string, moved bool, err error) {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return "", false, fmt.Errorf("%w: -listen: %w", ErrUsage, err)
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return "", false, fmt.Errorf("%w: -listen %s: whoever reaches the demo can log in, so it listens on loopback only", ErrUsage, listen)
	}
	if port != "0" && free(port) {
		return listen, false, nil
	}
	if port != "0" && listen != defaultListen {
		return "", false, fmt.Errorf("demo: listen on %s: somebody else does", listen)
	}
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		return "", false, fmt.Errorf("demo: find a free port: %w", err)
	}
	defer l.Close()
	return l.Addr().String(), port != "0", nil
}

// free says whether nobody has the port on either loopback address: browsers take
// localhost for one or the other.
func free(port string) bool {
	for _, host := range []string{"127.0.0.1", "::1"} {
		l, err := net.Listen("tcp", net.JoinHostPort(host, port))
		if err != nil {
			if host == "::1" && !has(host) {
				continue
			}
			return false
		}
		l.Close()
	}
	return true
}

// has says whether this machine has the address at all.
func has(host string) bool {
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		return false
	}
	l.Close()
	return true
}

func unpack(dir string) error {
	files, err := fs.Sub(spa, "spa")
	if err == nil {
		err = os.CopyFS(dir, files)
	}
	if err != nil {
		return fmt.Errorf("demo: unpack the sample app: %w", err)
	}
	return nil
}

// world is what the gateway needs around it: a provider and an API.
type world struct {
	address, origin, dir string
	secret, key          string
	provider             *devprovider.Provider
	issuer, api          string // URLs
	servers              []*http.Server
	stop                 context.CancelFunc
}

func newWorld(address, dir string) (*world, error) {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("demo: %w", err)
	}
	// The app is at localhost and the provider at 127.0.0.1: two sites for a
	// browser, as in real life, and cookies apart.
	w := &world{address: address, origin: "http://localhost:" + port, dir: dir, secret: rand.Text()}
	key := make([]byte, 32)
	rand.Read(key)
	w.key = base64.StdEncoding.EncodeToString(key)
	var ctx context.Context
	ctx, w.stop = context.WithCancel(context.Background())
	if err := w.startProvider(ctx); err != nil {
		w.close()
		return nil, err
	}
	if err := w.startAPI(ctx); err != nil {
		w.close()
		return nil, err
	}
	return w, nil
}

func (w *world) startProvider(ctx context.Context) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("demo: listen for the provider: %w", err)
	}
	w.issuer = "http://" + listener.Addr().String()
	w.provider, err = devprovider.New(devprovider.Config{
		Issuer: w.issuer,
		Clients: []devprovider.Client{{
			ID:                     clientID,
			Name:                   "sessiongate demo",
			Secret:                 w.secret,
			RedirectURIs:           []string{w.origin + "/bff/callback"},
			PostLogoutRedirectURIs: []string{w.origin + "/bff/logout/callback"},
			BackChannelLogoutURI:   w.origin + "/bff/backchannel",

			BackChannelSessionRequired: true,
		}},
		Users:          users,
		Audience:       audience,
		AccessTokenTTL: accessTokenTTL,
	})
	if err != nil {
		listener.Close()
		return fmt.Errorf("demo: %w", err)
	}
	w.serve(ctx, listener, w.provider)
	return nil
}

var users = []devprovider.User{
	{Sub: "248289761001", Name: "Ada Lovelace", Email: "ada@example.com", Claims: map[string]any{"roles": []string{"admin", "buyer"}}},
	{Sub: "248289761002", Name: "Grace Hopper", Email: "grace@example.com", Claims: map[string]any{"roles": []string{"buyer"}}},
	{Sub: "248289761003", Name: "Alan Turing", Email: "alan@example.com", Claims: map[string]any{"roles": []string{"auditor"}}},
}

func (w *world) startAPI(ctx context.Context) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("demo: listen for the sample API: %w", err)
	}
	w.api = "http://" + listener.Addr().String()
	w.serve(ctx, listener, newAPI(ctx, w.issuer, w.provider))
	return nil
}

// serve serves until close. Requests end with ctx, so that no stream keeps the
// demo from ending.
func (w *world) serve(ctx context.Context, listener net.Listener, handler http.Handler) {
	server := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 10 * time.Second,
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	w.servers = append(w.servers, server)
	go server.Serve(listener) // ends by close
}

// close ends provider and API. The gateway has ended before, so nobody is
// waiting for an answer any more.
func (w *world) close() {
	w.stop()
	for _, server := range w.servers {
		server.Close()
	}
}

// configuration is the gateway's, as an operator would write it.
func (w *world) configuration() []byte {
	return fmt.Appendf(nil, `listen: %q
shutdown_delay: 0s
admin: {listen: "127.0.0.1:0"}
log: {level: warn, format: text}
session:
  keys: [%q]
  idle_timeout: 5m
  lifetime: 2h
  store: {bbolt: {path: sessions.db}}
apps:
  - origin: %q
    oidc:
      issuer: %q
      client_id: %q
      client_secret: %q
    routes:
      - path: /api/
        upstream: %q
      - path: /
        static: {dir: spa, fallback: index.html}
        auth: none
    security_headers:
      csp: "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'"
`, w.address, w.key, w.origin, w.issuer, clientID, w.secret, w.api)
}
