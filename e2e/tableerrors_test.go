// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"net"
	"slices"
	"testing"
)

// TestDynamoDBErrors has a user meet what goes wrong around a table. Each error
// says where the table was looked for, or what to set or run.
func TestDynamoDBErrors(t *testing.T) {
	t.Parallel()
	f := newTableFleet(t)
	ops := f.dir("ops")
	f.newManager(ops, tenant)

	silent, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	nobody := freeAddr(t)
	good := f.env
	for _, c := range []struct {
		env  []string
		want []string
		args []string // nil: both a first and a later command
	}{
		{nil, []string{`"kt"`, "3 to 255"}, []string{"bus", "init", "dynamodb", "--table", "kt"}},
		{nil, []string{"keyturn bus init dynamodb --table nonesuch"}, []string{"manager", "init", "--bus", "dynamodb://nonesuch", "--dir", f.dir("none")}},
		{[]string{"AWS_REGION="}, []string{"AWS_REGION", "?region="}, nil},
		{[]string{"AWS_ACCESS_KEY_ID=", "AWS_SECRET_ACCESS_KEY="}, []string{"no AWS credentials", "AWS_ACCESS_KEY_ID"}, nil},
		{[]string{"AWS_ENDPOINT_URL_DYNAMODB=http://" + nobody}, []string{nobody, "us-east-1", "does not answer"}, nil},
		{[]string{"AWS_ENDPOINT_URL_DYNAMODB=http://" + silent.Addr().String()}, []string{silent.Addr().String(), "us-east-1", "has not answered"}, []string{"cert", "ls", "--data", ops}},
	} {
		f.env = slices.Concat(good, c.env)
		if c.args != nil {
			f.refused(1, c.want, c.args...)
			continue
		}
		f.refused(1, c.want, "bus", "init", "dynamodb", "--table", busTable)
		f.refused(1, c.want, "cert", "ls", "--data", ops)
	}
	f.env = good
	f.keyturn("cert", "ls", "--data", ops)
}
