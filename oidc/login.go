package oidc

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/oauth2"

	"sessiongate/session"
)

// Login sends the browser to the provider (RFC 6749, section 4.1.1; RFC 7636;
// Core 1.0, section 3.1.2.1). Whoever is logged in already gets a new session
// all the same (LOG-19).
func (e *Endpoints) Login(w http.ResponseWriter, r *http.Request) error {
	noStore(w)
	if wait := e.logins.take(e.address(r), time.Now()); wait > 0 {
		return refuseFlood(wait)
	}
	q, err := query(r, append([]string{"returnUrl"}, e.client.cfg.LoginParams...)...)
	if err != nil {
		return err
	}
	returnURL, err := ReturnURL(q.Get("returnUrl"), e.client.cfg.BasePath)
	if err != nil {
		return refuseReturnURL(err)
	}
	params, err := e.client.cfg.requestParams(q)
	if err != nil {
		return refuseParameter(err)
	}
	f := newFlow(returnURL)
	f.PromptNone = params["prompt"] == "none"
	if f.MaxAge, err = maxAge(params); err != nil {
		return refuseParameter(err)
	}
	if err := e.remember(f, r); err != nil {
		return err
	}
	md, err := e.client.discover(r.Context())
	if err != nil {
		return refuseProvider(e.client.metadata.retryAfter(), err)
	}
	if err := e.keepFlow(w, r, f); err != nil {
		return err
	}
	return redirect(w, e.client.authorizationURL(md, f, params), http.StatusFound)
}

// remember notes in the flow which session the browser has, if it has one.
func (e *Endpoints) remember(f *flow, r *http.Request) error {
	s, err := e.app.Session(r)
	var ended *session.Ended
	switch {
	case err == nil:
		key := s.Key()
		f.Former = key[:]
	case errors.As(err, &ended): // the cookie came back all the same
	case errors.Is(err, session.ErrNone):
		// From another site the browser keeps a Strict cookie back, so that none
		// came says nothing.
		if !e.app.Strict() || r.Header.Get("Sec-Fetch-Site") != "cross-site" {
			f.Logins = e.loginsBefore(r)
		}
	default:
		return err
	}
	return nil
}

// maxParam is the longest parameter that is passed on.
const maxParam = 1 << 10

// requestParams are the parameters of the authorization request that are not the
// protocol's own: the configured ones, and of the browser's those it may choose
// (LOG-13).
func (c *Config) requestParams(q url.Values) (map[string]string, error) {
	params := make(map[string]string, len(c.AuthParams))
	for _, name := range c.LoginParams {
		value := q.Get(name)
		if len(value) > maxParam || strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return nil, fmt.Errorf("%s is too long, or has a control character", name)
		}
		if value != "" {
			params[name] = value
		}
	}
	for name, value := range c.AuthParams {
		params[name] = value
	}
	return params, nil
}

// maxAge reads max_age (Core 1.0, section 3.1.2.1), nil if it is not sent.
func maxAge(params map[string]string) (*int64, error) {
	value, ok := params["max_age"]
	if !ok {
		return nil, nil
	}
	seconds, err := strconv.ParseUint(value, 10, 31)
	if err != nil {
		return nil, errors.New("max_age is not a number of seconds")
	}
	age := int64(seconds)
	return &age, nil
}

// authorizationURL is where the browser goes to log in.
func (c *Client) authorizationURL(md *metadata, f *flow, params map[string]string) string {
	config := oauth2.Config{
		ClientID:    c.cfg.ClientID,
		Endpoint:    oauth2.Endpoint{AuthURL: md.AuthorizationEndpoint},
		RedirectURL: c.redirectURI(),
		Scopes:      slices.Clone(c.cfg.Scopes),
	}
	options := make([]oauth2.AuthCodeOption, 0, len(params)+2)
	for name, value := range params {
		options = append(options, oauth2.SetAuthURLParam(name, value))
	}
	options = append(options, oauth2.SetAuthURLParam("nonce", f.Nonce), oauth2.S256ChallengeOption(f.Verifier))
	return config.AuthCodeURL(f.State, options...)
}
