package devprovider

import (
	"crypto/rand"
	"crypto/subtle"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

const codeTTL = time.Minute

// authRequest is an authorization request that may be answered at its
// redirect_uri.
type authRequest struct {
	client      *Client
	redirectURI string
	state       string
	nonce       string
	challenge   string
	scope       []string
	prompt      []string
	maxAge      time.Duration // negative: not asked for
	loginHint   string
	raw         url.Values
}

// authorize is the authorization endpoint: a code at once for a browser that is
// logged in here, else the login page.
func (p *Provider) authorize(x *exchange) answer {
	req, problem := p.authRequest(x, x.r.Form)
	if problem != nil {
		return *problem
	}
	s := p.session(x.r)
	if s != nil && p.suffices(s, req) {
		x.event.Sub = s.user.Sub
		return p.issueCode(req, s)
	}
	if slices.Contains(req.prompt, "none") {
		return p.errorRedirect(req, "login_required")
	}
	return answer{page: p.loginPage(req, "")}
}

// authRequest reads a request. Until client and redirect_uri are known to be
// right, an error must not be sent anywhere (RFC 6749, 4.1.2.1).
func (p *Provider) authRequest(x *exchange, params url.Values) (*authRequest, *answer) {
	refuse := func(why string) (*authRequest, *answer) {
		a := refused(why)
		return nil, &a
	}
	if name := repeated(params); name == "client_id" || name == "redirect_uri" {
		return refuse("The parameter " + name + " is there twice.")
	}
	x.event.ClientID = params.Get("client_id")
	client := p.client(params.Get("client_id"))
	if client == nil {
		return refuse("Unknown client.")
	}
	req := &authRequest{
		client:      client,
		redirectURI: params.Get("redirect_uri"),
		state:       params.Get("state"),
		nonce:       params.Get("nonce"),
		challenge:   params.Get("code_challenge"),
		scope:       strings.Fields(params.Get("scope")),
		prompt:      strings.Fields(params.Get("prompt")),
		maxAge:      -1,
		loginHint:   params.Get("login_hint"),
		raw:         params,
	}
	// Exact, character by character (RFC 9700, 4.1.3).
	if !slices.Contains(client.RedirectURIs, req.redirectURI) {
		return refuse("The redirect_uri is not registered for this client.")
	}
	if code := req.check(); code != "" {
		x.event.Error = code
		a := p.errorRedirect(req, code)
		return nil, &a
	}
	return req, nil
}

// check returns the error code for what is wrong with a request.
func (r *authRequest) check() string {
	age := r.raw.Get("max_age")
	seconds, err := strconv.Atoi(age)
	if age != "" && err == nil {
		r.maxAge = time.Duration(seconds) * time.Second
	}
	mode := r.raw.Get("response_mode")
	switch {
	case repeated(r.raw) != "":
		return "invalid_request"
	case r.raw.Has("request"):
		return "request_not_supported"
	case r.raw.Has("request_uri"):
		return "request_uri_not_supported"
	case r.raw.Get("response_type") != "code":
		return "unsupported_response_type"
	case mode != "" && mode != "query":
		return "invalid_request"
	case len(r.challenge) != 43 || r.raw.Get("code_challenge_method") != "S256":
		return "invalid_request"
	case !slices.Contains(r.scope, "openid"):
		return "invalid_scope"
	case age != "" && (err != nil || seconds < 0):
		return "invalid_request"
	case slices.Contains(r.prompt, "none") && len(r.prompt) > 1:
		return "invalid_request"
	}
	return ""
}

// suffices says whether a session answers a request without asking anybody.
func (p *Provider) suffices(s *session, req *authRequest) bool {
	if slices.Contains(req.prompt, "login") || slices.Contains(req.prompt, "select_account") {
		return false
	}
	if req.maxAge >= 0 && p.cfg.Now().Sub(s.authTime) >= max(req.maxAge, 1) {
		return false
	}
	return req.loginHint == "" || s.user.matches(req.loginHint)
}

func (u *User) matches(hint string) bool {
	return hint == u.Sub || strings.EqualFold(hint, u.Email)
}

// login takes what the login page sends: sub of a user, or a user's name and
// password, or that they would rather not. The request is in the URL's query.
func (p *Provider) login(x *exchange) answer {
	if err := http.NewCrossOriginProtection().Check(x.r); err != nil {
		return refused("This form was not filled in here.")
	}
	req, problem := p.authRequest(x, x.r.URL.Query())
	if problem != nil {
		return *problem
	}
	form := x.r.PostForm
	if form.Has("cancel") {
		return p.errorRedirect(req, "access_denied")
	}
	i := slices.IndexFunc(p.cfg.Users, func(u User) bool { return u.matches(form.Get("user")) })
	if i < 0 || subtle.ConstantTimeCompare([]byte(p.cfg.Users[i].Password), []byte(form.Get("password"))) != 1 {
		return answer{status: http.StatusUnauthorized, page: p.loginPage(req, "No such user, or wrong password.")}
	}
	user := &p.cfg.Users[i]
	x.event.Sub = user.Sub
	s, value := p.startSession(x.r, user)
	a := p.issueCode(req, s)
	cookie := &http.Cookie{
		Name: p.cookie, Value: value, Path: p.path + "/",
		HttpOnly: true, Secure: p.secure, SameSite: http.SameSiteLaxMode,
	}
	a.header = http.Header{"Set-Cookie": {cookie.String()}}
	return a
}

// startSession logs a user in. The same user in the same browser keeps the sid.
func (p *Provider) startSession(r *http.Request, user *User) (s *session, cookie string) {
	s = &session{sid: rand.Text(), user: user, authTime: p.cfg.Now()}
	if former := p.session(r); former != nil && former.user == user {
		s.sid = former.sid
	}
	cookie = rand.Text()
	p.mu.Lock()
	defer p.mu.Unlock()
	if former, err := r.Cookie(p.cookie); err == nil {
		delete(p.sessions, former.Value)
	}
	p.sessions[cookie] = s
	return s, cookie
}

// session is the browser's session here, or nil.
func (p *Provider) session(r *http.Request) *session {
	cookie, err := r.Cookie(p.cookie)
	if err != nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sessions[cookie.Value]
}

func (p *Provider) issueCode(req *authRequest, s *session) answer {
	value := rand.Text()
	p.mu.Lock()
	p.codes[value] = &code{
		client:      req.client,
		session:     s,
		redirectURI: req.redirectURI,
		challenge:   req.challenge,
		nonce:       req.nonce,
		scope:       req.scope,
		authTime:    s.authTime,
		expires:     p.cfg.Now().Add(codeTTL),
	}
	p.mu.Unlock()
	return p.callback(req, map[string]any{"code": value})
}

func (p *Provider) errorRedirect(req *authRequest, code string) answer {
	return p.callback(req, map[string]any{"error": code})
}

// callback sends the browser back to the client with state and, by RFC 9207, iss.
func (p *Provider) callback(req *authRequest, params map[string]any) answer {
	params["iss"] = p.cfg.Issuer
	if req.state != "" {
		params["state"] = req.state
	}
	f := p.arrive(Callback)
	if f.Error != "" {
		delete(params, "code")
		params["error"] = f.Error
	}
	if f.Edit != nil {
		f.Edit(params)
	}
	query := url.Values{}
	for name, value := range params {
		if text, ok := value.(string); ok {
			query.Set(name, text)
		}
	}
	return answer{location: addQuery(req.redirectURI, query)}
}
