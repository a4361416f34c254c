package oidc

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"sync/atomic"
	"time"

	jose "github.com/go-jose/go-jose/v4"

	"sessiongate/session"
)

// Client is our side of one client registration at one provider. It implements
// session.Refresher, and is safe for concurrent use.
type Client struct {
	cfg      Config
	http     *http.Client
	metadata *document[*metadata]
	keys     *keySet
}

const (
	metadataAge = time.Hour
	keysAge     = 15 * time.Minute
)

// NewClient checks the configuration. It does not touch the network: the
// provider is asked when it is needed, or by Run.
func NewClient(cfg Config) (*Client, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	c := &Client{cfg: cfg, http: newHTTPClient(cfg.CA)}
	c.metadata = &document[*metadata]{
		name: "provider metadata", fetch: c.fetchMetadata, timeout: cfg.Timeout, maxAge: metadataAge, log: cfg.Log,
	}
	c.keys = &keySet{
		document: document[[]jose.JSONWebKey]{
			name: "provider keys", fetch: c.fetchKeys, timeout: cfg.Timeout, maxAge: keysAge, log: cfg.Log,
		},
		answered: cooldown{pause: answeredPause}, unasked: cooldown{pause: unaskedPause},
	}
	return c, nil
}

// String keeps the client secret out of whatever prints a Client.
func (c *Client) String() string { return "oidc.Client{" + c.cfg.Issuer + "}" }

// GoString is String, for %#v.
func (c *Client) GoString() string { return c.String() }

// Run fetches metadata and keys ahead of their first use and keeps them fresh,
// until ctx ends. Without it all is fetched on demand.
func (c *Client) Run(ctx context.Context) {
	for ctx.Err() == nil {
		pause := time.Minute
		if _, err := c.keys.get(ctx); err != nil { // which needs the metadata first
			pause = firstPause // the documents know when to really try again
		}
		if _, err := c.discover(ctx); err != nil {
			pause = firstPause
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
}

// Ready is nil when the provider's metadata is known.
func (c *Client) Ready() error {
	c.metadata.mu.Lock()
	defer c.metadata.mu.Unlock()
	if !c.metadata.known && c.metadata.err == nil {
		return errors.New("oidc: the provider's metadata is not known yet")
	}
	return c.metadata.missing()
}

// Close waits for fetches under way, which have a deadline, and gives back idle
// connections.
func (c *Client) Close() {
	c.keys.settle()
	c.metadata.settle()
	c.http.CloseIdleConnections()
}

// discover returns the provider's metadata.
func (c *Client) discover(ctx context.Context) (*metadata, error) { return c.metadata.get(ctx) }

// newHTTPClient makes a client without cookies that follows no redirect: what we
// send to an endpoint, credentials in it, is for that endpoint alone (R9700 4.12),
// and a document that has moved is not the one the issuer vouches for.
func newHTTPClient(ca *x509.CertPool) *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			Proxy:                  http.ProxyFromEnvironment,
			DialContext:            (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
			TLSClientConfig:        &tls.Config{RootCAs: ca, MinVersion: tls.VersionTLS12},
			TLSHandshakeTimeout:    5 * time.Second,
			ForceAttemptHTTP2:      true,
			MaxConnsPerHost:        64,
			MaxIdleConnsPerHost:    16,
			IdleConnTimeout:        30 * time.Second,
			MaxResponseHeaderBytes: 64 << 10,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// maxBody is the largest answer that is read.
const maxBody = 1 << 20

// answer is what came back of a call, read whole.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// callError is a call that brought no usable answer. Nothing of what was sent is
// in its text, and nothing of the answer but its status and its OAuth error code.
type callError struct {
	call   string // which, such as "token request"
	status int    // 0: no answer came
	code   string // the OAuth error code, if the answer was one
	// unsent: the request was not even begun, so nobody acted on it.
	unsent     bool
	retryAfter time.Duration
	err        error
}

func (e *callError) Error() string {
	switch {
	case e.code != "":
		return fmt.Sprintf("oidc: %s: the provider answered %d %s", e.call, e.status, e.code)
	case e.status != 0 && e.err != nil:
		return fmt.Sprintf("oidc: %s: the provider answered %d: %v", e.call, e.status, e.err)
	case e.status != 0:
		return fmt.Sprintf("oidc: %s: the provider answered %d", e.call, e.status)
	}
	return fmt.Sprintf("oidc: %s: %v", e.call, e.err)
}

func (e *callError) Unwrap() error { return e.err }

var errTooLarge = errors.New("the answer is too large")

// do sends a request once and reads the answer to its end, within the
// configured time. Errors are *callError.
func (c *Client) do(req *http.Request, call string) (*answer, error) {
	ctx, cancel := session.Within(req.Context(), c.cfg.Timeout)
	defer cancel()
	// Before it has a connection, a request cannot have reached anybody.
	var connected atomic.Bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { connected.Store(true) }})
	req = req.WithContext(ctx)
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "sessiongate")

	resp, err := c.http.Do(req)
	if err != nil {
		var wrapped *url.Error
		if errors.As(err, &wrapped) {
			err = wrapped.Err // without the URL
		}
		return nil, &callError{call: call, unsent: !connected.Load(), err: err}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
	if err == nil && len(body) > maxBody {
		err = errTooLarge
	}
	if err != nil {
		return nil, &callError{call: call, status: resp.StatusCode, retryAfter: retryAfter(resp.Header), err: err}
	}
	return &answer{resp.StatusCode, resp.Header, body}, nil
}

// fetch gets a public document.
func (c *Client) fetch(ctx context.Context, call, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, fmt.Errorf("oidc: %s: %w", call, err)
	}
	a, err := c.do(req, call)
	if err != nil {
		return nil, err
	}
	if a.status != http.StatusOK {
		return nil, &callError{call: call, status: a.status, retryAfter: retryAfter(a.header)}
	}
	return a.body, nil
}
