// SPDX-License-Identifier: Apache-2.0

package embedded

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"time"

	"github.com/keyturn/keyturn"
)

// certificateID is the id of the server's one certificate in its store.
const certificateID = "bus"

// renewBefore is how long before its end the certificate is replaced, and
// lookEvery how often that is looked at: a timer stands still while a machine
// sleeps.
const (
	renewBefore = certificateLifetime / 3
	lookEvery   = time.Hour
)

// A certificate is the server's, which turns while the server runs. It lives in
// memory alone.
type certificate struct {
	authority *authority
	hosts     []string
	logger    *slog.Logger
	store     keyturn.Store
}

func newCertificate(a *authority, hosts []string, logger *slog.Logger) (*certificate, error) {
	c := &certificate{authority: a, hosts: hosts, logger: logger}
	c.store.SetDefault(certificateID)
	return c, c.renew()
}

func (c *certificate) renew() error {
	cert, err := c.authority.issue(c.hosts)
	if err != nil {
		return fmt.Errorf("making the certificate of the bus: %w", err)
	}
	if err := c.store.Put(certificateID, *cert); err != nil {
		return fmt.Errorf("the certificate of the bus: %w", err)
	}
	return nil
}

// run keeps the certificate from ending, until ctx ends.
func (c *certificate) run(ctx context.Context) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		info, ok := c.store.Info(certificateID)
		if ok && time.Until(info.NotAfter) > renewBefore {
			continue
		}
		if err := c.renew(); err != nil {
			c.logger.Error("the bus keeps its certificate for now", "error", err)
		}
	}
}

// config is for the listener: TLS 1.3 and nothing older.
func (c *certificate) config() *tls.Config {
	config := c.store.ServerConfig()
	config.MinVersion = tls.VersionTLS13
	return config
}
