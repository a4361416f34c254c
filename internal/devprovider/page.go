package devprovider

import (
	"bytes"
	_ "embed"
	"html/template"
	"net/http"
	"net/url"
	"strings"
	"unicode/utf8"
)

var (
	//go:embed page.html
	pageHTML string
	//go:embed style.css
	styleCSS []byte

	pageTemplate = template.Must(template.New("page").Funcs(template.FuncMap{"initials": initials}).Parse(pageHTML))
)

// page is one HTML page: the login page, or a text with what the end of a session
// needs.
type page struct {
	Title  string
	Text   string
	Base   string // the issuer's path
	Client string
	Query  template.URL // the authorization request, encoded, which the form carries on
	Hint   string
	Wrong  string // what went wrong
	Users  []User // who can log in by a click
	Form   bool   // somebody has a password
	Leave  bool   // a button to sign out
	Frames []string
	Next   string // where the browser goes once every frame has loaded
}

func (p *Provider) loginPage(req *authRequest, wrong string) *page {
	login := &page{
		Title:  "Sign in",
		Base:   p.path,
		Client: req.client.Name,
		Query:  template.URL(req.raw.Encode()),
		Hint:   req.loginHint,
		Wrong:  wrong,
	}
	for _, u := range p.cfg.Users {
		if u.Password != "" {
			login.Form = true
			continue
		}
		login.Users = append(login.Users, u)
	}
	return login
}

// logoutPage is for somebody who came by themselves; s may be nil.
func (p *Provider) logoutPage(s *session) *page {
	if s == nil {
		return &page{Title: "Not signed in", Text: "There is nobody to sign out in this browser.", Base: p.path}
	}
	return &page{Title: "Sign out?", Text: "You are signed in as " + s.user.Name + ".", Base: p.path, Leave: true}
}

// signedOutPage says where the user is signed out now, and where perhaps not.
func (p *Provider) signedOutPage(told []SentLogout, frames []string, next string) *page {
	pg := &page{Title: "Signed out", Base: p.path, Frames: frames, Next: next}
	places := []string{"You are signed out here"}
	for _, s := range told {
		name := p.client(s.ClientID).Name
		if s.Status == http.StatusOK || s.Status == http.StatusNoContent {
			places = append(places, "at "+name)
			continue
		}
		pg.Wrong = name + " was told, and did not confirm."
	}
	pg.Text = strings.Join(places, " and ") + ". You may close this window."
	return pg
}

// refused is the answer to a request that must not be sent back anywhere.
func refused(why string) answer {
	return answer{status: http.StatusBadRequest, page: &page{Title: "This does not work", Text: why}}
}

func (pg *page) render(h http.Header) []byte {
	h.Set("Content-Type", "text/html; charset=utf-8")
	// No form-action: browsers apply it to the redirect that follows the form, and
	// that leads to the client.
	csp := "default-src 'none'; style-src 'self'; img-src data:; base-uri 'none'; frame-ancestors 'none'"
	if len(pg.Frames) > 0 {
		csp += "; frame-src"
	}
	for _, frame := range pg.Frames {
		if u, err := url.Parse(frame); err == nil {
			csp += " " + u.Scheme + "://" + u.Host
		}
	}
	h.Set("Content-Security-Policy", csp)
	if pg.Next != "" {
		// Browsers count from when the page has loaded, with its frames (HTML, 2.4.4).
		h.Set("Refresh", "0;url="+pg.Next)
	}
	var b bytes.Buffer
	if err := pageTemplate.Execute(&b, pg); err != nil {
		return []byte(err.Error()) // a buffer does not fail, and the template is tested
	}
	return b.Bytes()
}

func serveStyle(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/css; charset=utf-8")
	w.Header().Set("Cache-Control", "max-age=300")
	w.Write(styleCSS)
}

// initials of the first and the last name.
func initials(name string) string {
	words := strings.Fields(name)
	if len(words) > 2 {
		words = []string{words[0], words[len(words)-1]}
	}
	var b strings.Builder
	for _, w := range words {
		r, _ := utf8.DecodeRuneInString(w)
		b.WriteRune(r)
	}
	return strings.ToUpper(b.String())
}
