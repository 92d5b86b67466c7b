// SPDX-License-Identifier: Apache-2.0

package dynamodb

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	api "github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/smithy-go"
)

// tableTime bounds how long DynamoDB takes to make a table, which is seconds.
const tableTime = 5 * time.Minute

// Init makes the table of a bus URL, dynamodb://TABLE?region=REGION, and returns
// when it can be used: paid by request, protected from deletion, with
// point-in-time recovery, and with the deletion of old notices. If it is there,
// what is missing of the last two is turned on; a table of another form is
// refused. It may be called again after an error.
func Init(ctx context.Context, url string) (created bool, err error) {
	client, table, err := dial(Options{URL: url})
	if err != nil {
		return false, err
	}
	in := schema(table)
	_, err = client.CreateTable(ctx, in)
	if _, there := errors.AsType[*types.ResourceInUseException](err); err != nil && !there {
		return false, fmt.Errorf("bus: making table %s: %w", table, explain(client, table, err))
	}
	created = err == nil
	out, err := api.NewTableExistsWaiter(client, func(o *api.TableExistsWaiterOptions) {
		o.MinDelay = time.Second
	}).WaitForOutput(ctx, &api.DescribeTableInput{TableName: &table}, tableTime)
	if err != nil {
		return created, fmt.Errorf("bus: waiting for table %s: %w", table, explain(client, table, err))
	}
	if !fits(out.Table, in) {
		return created, fmt.Errorf("bus: table %s is not a keyturn bus: its keys, or its index %q, are others; take another name", table, boardIndex)
	}
	if err := expire(ctx, client, table); err != nil {
		return created, fmt.Errorf("bus: letting old notices of table %s go: %w", table, explain(client, table, err))
	}
	if err := backUp(ctx, client, table); err != nil {
		return created, fmt.Errorf("bus: turning on the point-in-time recovery of table %s: %w", table, explain(client, table, err))
	}
	return created, nil
}

func schema(table string) *api.CreateTableInput {
	key := func(name string, t types.KeyType) types.KeySchemaElement {
		return types.KeySchemaElement{AttributeName: aws.String(name), KeyType: t}
	}
	in := &api.CreateTableInput{
		TableName:                 &table,
		BillingMode:               types.BillingModePayPerRequest,
		DeletionProtectionEnabled: aws.Bool(true),
		KeySchema:                 []types.KeySchemaElement{key(attrPK, types.KeyTypeHash), key(attrSK, types.KeyTypeRange)},
		GlobalSecondaryIndexes: []types.GlobalSecondaryIndex{{
			IndexName:  aws.String(boardIndex),
			KeySchema:  []types.KeySchemaElement{key(attrBoard, types.KeyTypeHash), key(attrSK, types.KeyTypeRange)},
			Projection: &types.Projection{ProjectionType: types.ProjectionTypeInclude, NonKeyAttributes: []string{attrChanged}},
		}},
	}
	for _, name := range []string{attrPK, attrSK, attrBoard} {
		in.AttributeDefinitions = append(in.AttributeDefinitions, types.AttributeDefinition{
			AttributeName: aws.String(name), AttributeType: types.ScalarAttributeTypeS,
		})
	}
	return in
}

// fits reports whether a table has the keys and the index that were asked for.
func fits(table *types.TableDescription, want *api.CreateTableInput) bool {
	if !sameKeys(table.KeySchema, want.KeySchema) {
		return false
	}
	for _, a := range table.AttributeDefinitions {
		if a.AttributeType != types.ScalarAttributeTypeS {
			return false
		}
	}
	index := want.GlobalSecondaryIndexes[0]
	return slices.ContainsFunc(table.GlobalSecondaryIndexes, func(i types.GlobalSecondaryIndexDescription) bool {
		return aws.ToString(i.IndexName) == boardIndex && sameKeys(i.KeySchema, index.KeySchema) && i.Projection != nil &&
			(i.Projection.ProjectionType == types.ProjectionTypeAll || slices.Contains(i.Projection.NonKeyAttributes, attrChanged))
	})
}

func sameKeys(a, b []types.KeySchemaElement) bool {
	return slices.EqualFunc(a, b, func(a, b types.KeySchemaElement) bool {
		return aws.ToString(a.AttributeName) == aws.ToString(b.AttributeName) && a.KeyType == b.KeyType
	})
}

// expire lets DynamoDB delete what has expired.
func expire(ctx context.Context, client *api.Client, table string) error {
	out, err := client.DescribeTimeToLive(ctx, &api.DescribeTimeToLiveInput{TableName: &table})
	if err != nil {
		return err
	}
	switch out.TimeToLiveDescription.TimeToLiveStatus {
	case types.TimeToLiveStatusEnabled, types.TimeToLiveStatusEnabling:
		if got := aws.ToString(out.TimeToLiveDescription.AttributeName); got != attrExpires {
			return fmt.Errorf("it goes by the attribute %q, not %q", got, attrExpires)
		}
		return nil
	}
	_, err = client.UpdateTimeToLive(ctx, &api.UpdateTimeToLiveInput{
		TableName:               &table,
		TimeToLiveSpecification: &types.TimeToLiveSpecification{AttributeName: aws.String(attrExpires), Enabled: aws.Bool(true)},
	})
	return err
}

// backUp turns point-in-time recovery on, where the service has it: DynamoDB
// Local does not.
func backUp(ctx context.Context, client *api.Client, table string) error {
	_, err := client.UpdateContinuousBackups(ctx, &api.UpdateContinuousBackupsInput{
		TableName:                        &table,
		PointInTimeRecoverySpecification: &types.PointInTimeRecoverySpecification{PointInTimeRecoveryEnabled: aws.Bool(true)},
	})
	if a, ok := errors.AsType[smithy.APIError](err); ok && a.ErrorCode() == "UnknownOperationException" {
		return nil
	}
	return err
}
