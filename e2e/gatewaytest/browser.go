package gatewaytest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"time"

	"sessiongate/internal/devprovider"
)

// Browser is somebody's browser as far as the gateway can tell: cookies, and
// nothing that runs scripts. It does not follow redirects.
type Browser struct {
	origin *url.URL
	client *http.Client
}

// NewBrowser returns a browser that has been nowhere yet.
func (w *World) NewBrowser() *Browser {
	jar, _ := cookiejar.New(nil)
	origin, err := url.Parse(w.Origin)
	if err != nil {
		panic(err)
	}
	return &Browser{origin, &http.Client{
		Jar:           jar,
		Timeout:       20 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		// One connection per request: a killed gateway must not be told by a connection that it kept.
		Transport: &http.Transport{DisableKeepAlives: true},
	}}
}

// Via returns the same browser, whose requests to the app go to one gateway and
// pass no balancer.
func (b *Browser) Via(g *Gateway) *Browser {
	client := *b.client
	client.Transport = &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			if address == b.origin.Host {
				address = g.Listen()
			}
			return new(net.Dialer).DialContext(ctx, network, address)
		},
	}
	return &Browser{b.origin, &client}
}

// Client is what the browser sends by, for what it has no method for.
func (b *Browser) Client() *http.Client { return b.client }

// Answer is what came back.
type Answer struct {
	Status int
	Header http.Header
	Body   string
	// Of problem+json answers.
	Problem struct{ Code, Reason string }
}

func (a *Answer) String() string {
	switch {
	case a.Header.Get(BalancerError) != "":
		return fmt.Sprintf("%d of the balancer: %s", a.Status, a.Header.Get(BalancerError))
	case a.Problem.Reason != "":
		return fmt.Sprintf("%d %s %s", a.Status, a.Problem.Code, a.Problem.Reason)
	case a.Problem.Code != "":
		return fmt.Sprintf("%d %s", a.Status, a.Problem.Code)
	}
	return fmt.Sprintf("%d %s", a.Status, strings.TrimSpace(a.Body))
}

// Navigate follows a link to path, or to a full URL.
func (b *Browser) Navigate(to string) (*Answer, error) {
	return b.do("GET", to, "", http.Header{
		"Accept":         {"text/html"},
		"Sec-Fetch-Site": {"none"},
		"Sec-Fetch-Mode": {"navigate"},
		"Sec-Fetch-Dest": {"document"},
	})
}

// Fetch does what a script of the app does.
func (b *Browser) Fetch(method, path string) (*Answer, error) { return b.Send(method, path, "") }

// Send is Fetch with a body.
func (b *Browser) Send(method, path, body string) (*Answer, error) {
	return b.do(method, path, body, http.Header{
		"X-Csrf":         {"1"},
		"Sec-Fetch-Site": {"same-origin"},
		"Sec-Fetch-Mode": {"cors"},
		"Sec-Fetch-Dest": {"empty"},
	})
}

// Call calls the API.
func (b *Browser) Call() (*Answer, error) { return b.Fetch("GET", "/api/echo") }

// CallAndLeave calls the API and hangs up after a while.
func (b *Browser) CallAndLeave(after time.Duration) (*Answer, error) {
	hasty := *b.client
	hasty.Timeout = after
	return (&Browser{b.origin, &hasty}).Call()
}

func (b *Browser) do(method, to, body string, header http.Header) (*Answer, error) {
	target, err := b.origin.Parse(to)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequest(method, target.String(), strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header = header
	res, err := b.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	return read(res)
}

// read reads an answer to its end.
func read(res *http.Response) (*Answer, error) {
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return nil, err
	}
	a := &Answer{Status: res.StatusCode, Header: res.Header, Body: string(body)}
	if res.Header.Get("Content-Type") == "application/problem+json" {
		if err := json.Unmarshal(body, &a.Problem); err != nil {
			return nil, err
		}
	}
	return a, nil
}

// ReadHead reads an answer, but leaves the body of a good one to be read: a
// stream's.
func ReadHead(res *http.Response) (*Answer, error) {
	if res.StatusCode == http.StatusOK {
		return &Answer{Status: res.StatusCode, Header: res.Header}, nil
	}
	return read(res)
}

// Authorize begins a login and does at the provider what a person does there. It
// returns the callback that the provider then sends the browser to.
func (b *Browser) Authorize(user string) (callback string, err error) {
	begun, err := b.Navigate("/bff/login?prompt=login")
	if err != nil {
		return "", err
	}
	if begun.Status != http.StatusFound {
		return "", fmt.Errorf("login: %s", begun)
	}
	return devprovider.SignIn(b.client, begun.Header.Get("Location"), user, "")
}

// ErrNotLoggedIn is returned by Login when the callback was answered by anything
// but the way into the app. The answer comes with it.
var ErrNotLoggedIn = errors.New("not logged in")

// Login logs in, from the app to the provider and back.
func (b *Browser) Login(user string) (*Answer, error) {
	callback, err := b.Authorize(user)
	if err != nil {
		return nil, err
	}
	answer, err := b.Navigate(callback)
	if err != nil {
		return nil, err
	}
	if answer.Status != http.StatusSeeOther || b.Session() == "" {
		return answer, fmt.Errorf("%w: %s", ErrNotLoggedIn, answer)
	}
	return answer, nil
}

// Logout ends the session here. It does not go on to the provider.
func (b *Browser) Logout() error {
	answer, err := b.Fetch("POST", "/bff/logout")
	if err == nil && answer.Status != http.StatusOK {
		return fmt.Errorf("logout: %s", answer)
	}
	return err
}

// Session is the value of the session cookie, or "".
func (b *Browser) Session() string {
	for _, c := range b.client.Jar.Cookies(b.origin) {
		if c.Name == "sessiongate" {
			return c.Value
		}
	}
	return ""
}

// Steal returns another browser that was given the session cookie.
func (b *Browser) Steal(w *World, session string) *Browser {
	thief := w.NewBrowser()
	thief.client.Jar.SetCookies(b.origin, []*http.Cookie{{Name: "sessiongate", Value: session, Path: "/"}})
	return thief
}
