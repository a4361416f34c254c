// Command provider is an OpenID provider to try the React example with, on
// loopback and with users who need no password. The client's secret is in
// CLIENT_SECRET.
//
//	CLIENT_SECRET=… provider -listen 127.0.0.1:9090 -app http://localhost:8080
package main

import (
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"time"

	"sessiongate/internal/devprovider"
)

func main() {
	log.SetFlags(0)
	listen := flag.String("listen", "127.0.0.1:9090", "loopback `address`")
	app := flag.String("app", "http://localhost:8080", "the app's `origin`")
	clientID := flag.String("client", "quayside", "the gateway's client `id`")
	flag.Parse()
	log.Fatal(run(*listen, *app, *clientID, os.Getenv("CLIENT_SECRET")))
}

func run(listen, app, clientID, secret string) error {
	if secret == "" {
		return errors.New("provider: CLIENT_SECRET is not set")
	}
	listener, err := net.Listen("tcp", listen)
	if err != nil {
		return fmt.Errorf("provider: %w", err)
	}
	issuer := "http://" + listener.Addr().String()
	provider, err := devprovider.New(devprovider.Config{
		Issuer: issuer,
		Clients: []devprovider.Client{{
			ID:                     clientID,
			Name:                   "Quayside",
			Secret:                 secret,
			RedirectURIs:           []string{app + "/bff/callback"},
			PostLogoutRedirectURIs: []string{app + "/bff/logout/callback"},
			BackChannelLogoutURI:   app + "/bff/backchannel",
		}},
		Users: []devprovider.User{
			{Sub: "1001", Name: "Ada Lovelace", Email: "ada@example.com"},
			{Sub: "1002", Name: "Grace Hopper", Email: "grace@example.com"},
			{Sub: "1003", Name: "Alan Turing", Email: "alan@example.com"},
		},
		AccessTokenTTL: time.Minute, // short, so that refreshes happen while one looks
	})
	if err != nil {
		return err
	}
	server := &http.Server{Handler: provider, ReadHeaderTimeout: 10 * time.Second}
	return server.Serve(listener)
}
