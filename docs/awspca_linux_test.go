// SPDX-License-Identifier: Apache-2.0

package docs_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"testing"

	"github.com/keyturn/keyturn/internal/motoserver"
	"github.com/keyturn/keyturn/internal/testprogram"
)

// TestAWSPCAGuide follows awspca.md word by word, each block on its host, with AWS's
// own command line. An emulator stands in for AWS, on the host ops.
func TestAWSPCAGuide(t *testing.T) {
	if _, err := exec.LookPath("aws"); err != nil {
		testprogram.Missing(t, "aws is not installed; run: pip install awscli", errors.New("no program aws"))
	}
	program := motoserver.Program(t)
	g := newGuide(t, "ops", "lb1")
	port, err := testprogram.FreePort("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	endpoint := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	g.env = []string{
		"AWS_ENDPOINT_URL=http://" + endpoint, "AWS_ACCESS_KEY_ID=test", "AWS_SECRET_ACCESS_KEY=test", "AWS_DEFAULT_REGION=" + motoserver.Region,
		"AWS_CONFIG_FILE=" + os.DevNull, "AWS_SHARED_CREDENTIALS_FILE=" + os.DevNull,
	}
	g.background(g.hosts["ops"], fmt.Sprintf("%s -H 127.0.0.1 -p %d # at %s", program, port, endpoint))
	serials := g.follow("awspca.md")
	if len(serials) != 2 || serials[0] == serials[1] {
		t.Errorf("the serials are %q: want one, and a new one after it was revoked", serials)
	}
}
