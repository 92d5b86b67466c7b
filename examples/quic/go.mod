module github.com/keyturn/keyturn/examples/quic

go 1.26.0

require (
	github.com/keyturn/keyturn v0.0.0
	github.com/quic-go/quic-go v0.65.0
	go.uber.org/goleak v1.3.0
)

require (
	golang.org/x/crypto v0.58.0 // indirect
	golang.org/x/net v0.62.0 // indirect
	golang.org/x/sys v0.49.0 // indirect
)

replace github.com/keyturn/keyturn => ../..
