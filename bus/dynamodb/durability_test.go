// SPDX-License-Identifier: Apache-2.0

package dynamodb_test

import (
	"fmt"
	"maps"
	"testing"

	api "github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/bus/dynamodb"
	"github.com/keyturn/keyturn/internal/dynamolocal"
)

// TestDurability: nothing is reduced, the head is what replicas follow, and a log that
// was replaced shows.
func TestDurability(t *testing.T) {
	url := table(t, dynamolocal.Shared(t))
	l := open(t, url, "")
	read := func() *bus.Durability {
		t.Helper()
		d, err := l.Durability(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if d.Engine != "DynamoDB" || d.Reduced == nil || len(d.Reduced) > 0 || d.Cluster != "" || len(d.Servers)+len(d.Streams) > 0 {
			t.Errorf("%+v", d)
		}
		return d
	}
	if d := read(); d.Head != 0 {
		t.Errorf("the head of an empty log is %d", d.Head)
	}
	write(t, l, "state/a", bus.Position{}, "a")
	write(t, l, "state/b", bus.Position{}, "b")
	if d := read(); d.Head != 0 {
		t.Errorf("the head is %d, and there is nothing to follow", d.Head)
	}
	write(t, l, "group/web/a", bus.Position{}, "a")
	p := write(t, l, "group/api/a", bus.Position{}, "a")
	d := read()
	if d.Log != p.Log || d.Head != p.Seq {
		t.Errorf("log %s, head %d; the newest entry is at %s", d.Log, d.Head, p)
	}

	drop(t, url)
	if _, err := l.Durability(t.Context()); err == nil {
		t.Error("a table that is gone is as promised")
	}
	if _, err := dynamodb.Init(t.Context(), url); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Durability(t.Context()); err == nil {
		t.Error("a table without a log is as promised")
	}
	other := open(t, url, "")
	if again := read(); again.Log == d.Log || again.Head != 0 {
		t.Errorf("after it was replaced: log %s, head %d", again.Log, again.Head)
	}
	other.Close()
	if _, err := other.Durability(t.Context()); err == nil {
		t.Error("a log that was closed tells its durability")
	}
}

// TestCount counts keys, and not how often they were written, nor those of others.
func TestCount(t *testing.T) {
	url := table(t, dynamolocal.Shared(t))
	l := open(t, url, "")
	write(t, open(t, url, "other"), "state/a", bus.Position{}, "a")
	at := bus.Position{}
	for range 3 {
		at = write(t, l, "state/a", at, at.String())
	}
	write(t, l, "state/b", bus.Position{}, "b")
	write(t, l, "group/web/a", bus.Position{}, "a")
	write(t, l, "group/api/a", bus.Position{}, "a")
	write(t, l, "conf/log", bus.Position{}, "a")
	// Rows that are longer than any of ours fill more than one answer, which has 1 MB.
	client, name := admin(t, url)
	for i := range 30 {
		row := map[string]types.AttributeValue{
			"pk": &types.AttributeValueMemberS{Value: "default/names"}, "sk": &types.AttributeValueMemberS{Value: fmt.Sprintf("@%020d", i+1)},
			"long": &types.AttributeValueMemberB{Value: make([]byte, 100<<10)},
		}
		if _, err := client.PutItem(t.Context(), &api.PutItemInput{TableName: name, Item: row}); err != nil {
			t.Fatal(err)
		}
	}
	got, err := l.Count(t.Context(), []string{"state", "group", "conf", "names", "join"})
	if want := map[string]uint64{"state": 2, "group": 2, "conf": 1, "names": 30, "join": 0}; err != nil || !maps.Equal(got, want) {
		t.Errorf("%v, %v; want %v", got, err, want)
	}
	l.Close()
	if got, err := l.Count(t.Context(), []string{"state"}); err == nil {
		t.Errorf("a log that was closed has %v", got)
	}
}
