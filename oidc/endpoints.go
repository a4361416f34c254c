package oidc

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"unicode"

	"sessiongate/session"
)

// Endpoints serves the endpoints of one app below its base path (DESIGN.md,
// section 7). Its methods return what they refuse as an error with a code, and
// write nothing then but headers. They rely on the proxy for what is the same for
// all endpoints: methods, CSRF, and that navigations are navigations.
type Endpoints struct {
	client  *Client
	app     *session.App
	address func(*http.Request) string
	metrics *Metrics
	log     *slog.Logger
	logins  limiter
}

// Options are what Endpoints can do without.
type Options struct {
	// ClientAddress tells a client's address; nil: the peer's.
	ClientAddress func(*http.Request) string
	Metrics       *Metrics
	// LoginsPerMinute limits the logins that one client address may start; 0: no
	// limit.
	LoginsPerMinute int
	Log             *slog.Logger
}

// NewEndpoints serves logins at the client's provider into sessions of the app.
func NewEndpoints(c *Client, app *session.App, o Options) *Endpoints {
	e := &Endpoints{client: c, app: app, address: o.ClientAddress, metrics: o.Metrics, log: o.Log}
	if e.log == nil {
		e.log = slog.New(slog.DiscardHandler)
	}
	e.log = e.log.With("app", c.cfg.Origin)
	if e.address == nil {
		e.address = peer
	}
	e.logins.perMinute = o.LoginsPerMinute
	return e
}

func peer(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}

// path is the path of one of our endpoints.
func (e *Endpoints) path(endpoint string) string { return e.client.cfg.BasePath + "/" + endpoint }

func noStore(w http.ResponseWriter) { w.Header().Set("Cache-Control", "no-store") }

// redirect is http.Redirect without a body, and without its cleaning of the path:
// a returnUrl goes back byte for byte.
func redirect(w http.ResponseWriter, location string, status int) error {
	w.Header().Set("Location", location)
	// Neither the code nor a logout's parameters go on to anybody (CB-20).
	w.Header().Set("Referrer-Policy", "no-referrer")
	w.WriteHeader(status)
	return nil
}

// query reads the query. The known parameters may be given once each
// (RFC 6749, section 3.1; CB-07), others are nobody's business.
func query(r *http.Request, known ...string) (url.Values, error) {
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, refuseParameter(errors.New("the query is malformed"))
	}
	for _, name := range known {
		if len(q[name]) > 1 {
			return nil, refuseParameter(fmt.Errorf("%s is given more than once", name))
		}
	}
	return q, nil
}

// code is the wire code of an error.
func code(err error) string {
	var coded interface{ Code() string }
	if errors.As(err, &coded) {
		return coded.Code()
	}
	return "internal_error"
}

// foreign is text of somebody else made fit for a log: short, printable ASCII.
func foreign(s string) string {
	const most = 200
	s = strings.Map(func(r rune) rune {
		if r > unicode.MaxASCII || !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s[:min(len(s), most)])
	return s
}

// audit logs an event of the audit trail (DESIGN.md, section 8).
func (e *Endpoints) audit(r *http.Request, level slog.Level, event, text string, attrs ...slog.Attr) {
	e.log.LogAttrs(r.Context(), level, text, append([]slog.Attr{slog.String("event", event)}, attrs...)...)
}

var _ session.Refresher = (*Client)(nil)
