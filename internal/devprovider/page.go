package devprovider

import (
	"bytes"
	_ "embed"
	"html/template"
	"net/http"
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

// page is one HTML page: the login page, or a text alone.
type page struct {
	Title  string
	Text   string
	Base   string // the issuer's path
	Client string
	Query  template.URL // the authorization request, encoded, which the form carries on
	Hint   string
	Wrong  string // what was wrong with the last attempt
	Users  []User // who can log in by a click
	Form   bool   // somebody has a password
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

// refused is the answer to a request that must not be sent back anywhere.
func refused(why string) answer {
	return answer{status: http.StatusBadRequest, page: &page{Title: "This does not work", Text: why}}
}

func (pg *page) render(h http.Header) []byte {
	h.Set("Content-Type", "text/html; charset=utf-8")
	// No form-action: browsers apply it to the redirect that follows the form, and
	// that leads to the client.
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; img-src data:; base-uri 'none'; frame-ancestors 'none'")
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
