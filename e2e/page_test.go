// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
)

// TestPage asks what monitoring asks.
func TestPage(t *testing.T) {
	t.Parallel()
	s := newSandbox(t)
	in := s.serve("--dev-lifetime", "1h")
	id := s.edgeID()
	if _, err := s.renew(id); err != nil {
		t.Fatal(err)
	}
	c := s.cat(id)

	if code, body := in.get(t, "/healthz"); code != http.StatusOK || body != "ok\n" {
		t.Errorf("/healthz: %d %q", code, body)
	}
	eventually(t, "/readyz", func() error {
		if code, body := in.get(t, "/readyz"); code != http.StatusOK {
			return fmt.Errorf("%d %s", code, body)
		}
		return nil
	})
	_, ready := in.get(t, "/readyz")
	for _, line := range lines(ready) {
		if !strings.HasSuffix(line, ": ok") {
			t.Errorf("/readyz is ready and says %q", line)
		}
	}

	_, text := in.get(t, "/metrics")
	if problems, err := promlint.New(strings.NewReader(text)).Lint(); err != nil {
		t.Errorf("/metrics does not parse: %v\n%s", err, text)
	} else {
		for _, p := range problems {
			if strings.HasPrefix(p.Metric, "keyturn_") {
				t.Errorf("/metrics: %s: %s", p.Metric, p.Text)
			}
		}
	}
	labels := fmt.Sprintf(`group="default",issuer_name="dev",name="%s"`, id)
	for series, want := range map[string]float64{
		"expiration_timestamp_seconds{" + labels + "}":   unix(c.Certificate.NotAfter),
		"not_after_timestamp_seconds{" + labels + "}":    unix(c.Certificate.NotAfter),
		"not_before_timestamp_seconds{" + labels + "}":   unix(c.Certificate.NotBefore),
		"generation{" + labels + "}":                     float64(c.Generation),
		"failed_attempts{" + labels + "}":                0,
		`ready_status{condition="True",` + labels + "}":  1,
		`ready_status{condition="False",` + labels + "}": 0,
	} {
		series := "keyturn_certificate_" + series
		eventually(t, series, func() error { // the metrics follow the bus
			if got := in.metric(t, series); got != want {
				return fmt.Errorf("it is %v, want %v", got, want)
			}
			return nil
		})
	}
	due := in.metric(t, "keyturn_certificate_renewal_timestamp_seconds{"+labels+"}")
	if due <= unix(time.Now()) || due >= unix(c.Certificate.NotAfter) {
		t.Errorf("the renewal is due at %v, and the certificate ends at %v", due, unix(c.Certificate.NotAfter))
	}
	for series, want := range map[string]float64{"keyturn_replica_certificates": 1, "keyturn_replica_following": 1, "keyturn_replica_snapshot_errors_total": 0} {
		eventually(t, series, func() error {
			if got := in.metric(t, series); got != want {
				return fmt.Errorf("it is %v, want %v", got, want)
			}
			return nil
		})
	}

	// The page is there without TLS, and shows what is in use.
	eventually(t, "/", func() error {
		if code, body := in.get(t, "/"); code != http.StatusOK || !strings.Contains(body, id) {
			return fmt.Errorf("%d %s", code, tail(body))
		}
		return nil
	})
	eventually(t, "/state", func() error {
		state := in.edgeState(t)
		if state.Main != id || len(state.Certificates) != 1 || state.Certificates[0].Serial != c.Certificate.Serial ||
			state.Certificates[0].Fingerprint != c.Certificate.SHA256 || state.Certificates[0].Generation != c.Generation {
			return fmt.Errorf("it says %+v, want generation %d, serial %s of %s", state, c.Generation, c.Certificate.Serial, id)
		}
		return nil
	})
	in.stop(t, sigterm)
}

func unix(t time.Time) float64 { return float64(t.Unix()) }
