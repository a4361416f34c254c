package config

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite testdata/*.golden")

// loadTestdata loads a file as an operator would who stands beside it, so that
// messages hold no path of this machine.
func loadTestdata(t *testing.T, name string) (*Config, error) {
	t.Helper()
	t.Chdir("testdata")
	t.Setenv("CONFIG_TEST_VALUE", "canary from the environment")
	t.Setenv("CONFIG_TEST_INJECTION", "/x, upstream: https://evil.example.com}\n      - {path: /y")
	c, err := Load(name)
	if err != nil {
		here, _ := os.Getwd()
		err = errors.New(strings.ReplaceAll(err.Error(), here, "DIR"))
	}
	return c, err
}

// OP-01, and the promise that no message holds a secret: every secret in
// testdata says "canary".
func TestBadConfigurationsAreRefusedWithAllThatIsWrong(t *testing.T) {
	files, err := filepath.Glob("testdata/bad-*.yaml")
	if err != nil || len(files) < 10 {
		t.Fatalf("testdata: %v, %v", files, err)
	}
	for _, file := range files {
		name := filepath.Base(file)
		t.Run(name, func(t *testing.T) {
			_, err := loadTestdata(t, name)
			if err == nil {
				t.Fatal("it was accepted")
			}
			got := err.Error() + "\n"
			if strings.Contains(strings.ToLower(got), "canary") {
				t.Errorf("a message holds a secret:\n%s", got)
			}
			golden := strings.TrimSuffix(name, ".yaml") + ".golden"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil || got != string(want) {
				t.Errorf("got:\n%s\nwant:\n%s", got, want)
			}
		})
	}
}

const (
	// Every secret in them says "canary".
	blockOfSecrets = `
session:
  keys:
    - canaryq9Zr0Jw2cXh4tV7nLs1KpE8mYd3uGa6bFo5iTk
  cookie: {name: bad}
apps:
  - origin: http://shop.example.com
    oidc:
      issuer: http://user:canary@login.example.com
      client_id: shop
      client_secret: canary
      scopes: [profile]
    routes:
      - path: api
        upstream: https://canary:canary@api.example.com
        headers:
          set:
            X-Api-Key: canary
            Connection: "canary"
        auth: nobody
`
	flowOfSecrets = `{session: {keys: [canaryq9Zr0Jw2cXh4tV7nLs1KpE8mYd3uGa6bFo5iTk], cookie: {name: bad}}, apps: [{origin: "http://shop.example.com",
  oidc: {client_id: shop, client_secret: "canary", issuer: bad}, routes: [{path: api, headers: {set: {X-Key: 'canary'}}}]}]}`
)

// Whatever single character is wrong, and whatever that makes of the file, no
// secret is shown.
func TestNoTypoMakesAMessageShowASecret(t *testing.T) {
	for _, text := range []string{blockOfSecrets, flowOfSecrets} {
		for i := range len(text) {
			for n, typo := range []string{"", " ", "\n", ":", "-", "#", "'", `"`, "{", "[", "|", "&", "?", ","} {
				if (i+n)%4 != 0 {
					continue // all of them take a minute with -race
				}
				for _, wrong := range []string{text[:i] + typo + text[i+1:], text[:i] + typo + text[i:]} {
					c, err := Parse("c.yaml", []byte(wrong))
					said := fmt.Sprint(err)
					if err == nil {
						said = c.Warnings().Error()
					}
					if strings.Contains(said, "canary") {
						t.Fatalf("with %q at %d:\n%s\n%s", typo, i, wrong, said)
					}
				}
			}
		}
	}
}
