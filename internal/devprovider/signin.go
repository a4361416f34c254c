package devprovider

import (
	"fmt"
	"html"
	"io"
	"net/http"
	"net/url"
	"regexp"
)

var formAction = regexp.MustCompile(`<form method="post" action="([^"]+)"`)

// SignIn does at the login page what a person does: it opens the authorization
// URL, gives the user (sub or email) and, if the user has one, the password. It
// returns the URL of the client that the provider then sends the browser to. A
// client with a cookie jar is a browser that stays logged in at the provider.
func SignIn(client *http.Client, authorizationURL, user, password string) (callback string, err error) {
	browser := *client
	browser.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	res, err := browser.Get(authorizationURL)
	if err != nil {
		return "", fmt.Errorf("devprovider: sign in: %w", err)
	}
	page, err := io.ReadAll(res.Body)
	res.Body.Close()
	if err != nil {
		return "", fmt.Errorf("devprovider: sign in: %w", err)
	}
	if form := formAction.FindSubmatch(page); form != nil && res.StatusCode == http.StatusOK {
		login, err := res.Request.URL.Parse(html.UnescapeString(string(form[1])))
		if err != nil {
			return "", fmt.Errorf("devprovider: sign in: %w", err)
		}
		res, err = browser.PostForm(login.String(), url.Values{"user": {user}, "password": {password}})
		if err != nil {
			return "", fmt.Errorf("devprovider: sign in: %w", err)
		}
		res.Body.Close()
	}
	if res.StatusCode != http.StatusSeeOther {
		return "", fmt.Errorf("devprovider: sign in as %q: %s", user, res.Status)
	}
	return res.Header.Get("Location"), nil
}
