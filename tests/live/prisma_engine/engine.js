// Prisma's own query engine, the WebAssembly build of the npm package @prisma/client, behind the HTTP interface
// of its binary build, which no package registry has. The Python client writes GraphQL; the WebAssembly build
// reads Prisma's JSON protocol only. For tests: what LiteLLM needs of it, and no more.
'use strict'
const fs = require('node:fs')
const http = require('node:http')
const { parse } = require('graphql')
const { Pool } = require('pg')
const { PrismaPg } = require('@prisma/adapter-pg')
const { bindAdapter } = require('@prisma/driver-adapter-utils')
const bindings = require('@prisma/client/runtime/query_engine_bg.postgresql.js')

const PREFIXES = ['findUnique', 'findFirst', 'findMany', 'createOne', 'createMany', 'updateOne', 'updateMany',
  'deleteOne', 'deleteMany', 'upsertOne', 'aggregate', 'groupBy']

// Names of the JSON columns by model: GraphQL writes JSON as a string, Prisma's JSON protocol as a tagged one.
const jsonFields = new Map()

function readModels (datamodel) {
  for (const [, model, lines] of datamodel.matchAll(/^model (\w+) \{([^]*?)^\}/gm)) {
    jsonFields.set(model, new Set([...lines.matchAll(/^\s+(\w+)\s+Json\b/gm)].map(found => found[1])))
  }
}

function literal (node, model, json = false) {
  switch (node.kind) {
    case 'NullValue': return null
    case 'IntValue': case 'FloatValue': return Number(node.value)
    case 'ListValue': return node.values.map(value => literal(value, model, json))
    case 'ObjectValue': return Object.fromEntries(node.fields.map(field => {
      const name = field.name.value
      return [name, literal(field.value, model, jsonFields.get(model)?.has(name) || (json && name === 'equals'))]
    }))
    case 'StringValue': return json ? { $type: 'Json', value: node.value } : node.value
    default: return node.value
  }
}

function body (node, model) {
  const selection = {}
  for (const field of node.selectionSet?.selections ?? []) {
    selection[field.name.value] = field.selectionSet || field.arguments.length ? body(field, model) : true
  }
  return {
    arguments: Object.fromEntries(node.arguments.map(argument => [argument.name.value, literal(argument.value, model)])),
    selection
  }
}

function operation (query) {
  const field = parse(query).definitions[0].selectionSet.selections[0]
  const name = field.name.value
  if (name === 'queryRaw' || name === 'executeRaw') return { action: name, query: body(field) }
  const prefix = PREFIXES.find(one => name.startsWith(one))
  const orThrow = prefix.startsWith('find') && name.endsWith('OrThrow') ? 'OrThrow' : ''
  const modelName = name.slice(prefix.length, name.length - orThrow.length)
  return { modelName, action: prefix + orThrow, query: body(field, modelName) }
}

function plain (value) {
  if (Array.isArray(value)) return value.map(plain)
  if (value === null || typeof value !== 'object') return value
  if ('$type' in value) return value.value
  return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, plain(v)]))
}

function answer (result) {
  if (result.data) return { data: { result: plain(Object.values(result.data)[0]) } }
  return result
}

async function main () {
  const { instance } = await WebAssembly.instantiate(
    fs.readFileSync(require.resolve('@prisma/client/runtime/query_engine_bg.postgresql.wasm')),
    { './query_engine_bg.js': bindings })
  bindings.__wbg_set_wasm(instance.exports)
  const datamodel = fs.readFileSync(process.env.PRISMA_DML_PATH, 'utf8')
    .replace(/generator client \{[^}]*\}/, 'generator client {\n provider = "prisma-client-js"\n previewFeatures = ["driverAdapters"]\n}')
  readModels(datamodel)
  const url = new URL(process.env.DATABASE_URL)
  for (const name of ['connection_limit', 'pool_timeout']) url.searchParams.delete(name)
  const adapter = bindAdapter(new PrismaPg(new Pool({ connectionString: url.href, max: 5 })))
  const engine = new bindings.QueryEngine({
    datamodel, logLevel: 'error', logQueries: false, datasourceOverrides: {}, env: process.env,
    ignoreEnvVarErrors: false, engineProtocol: 'json'
  }, () => {}, adapter)
  await engine.connect('{}')

  async function handle (path, text, tx) {
    if (path === '/status') return { status: 'ok' }
    const request = text ? JSON.parse(text) : {}
    const [, , id, verb] = path.split('/')
    if (path === '/transaction/start') return JSON.parse(await engine.startTransaction(JSON.stringify(request), '{}'))
    if (verb === 'commit') return JSON.parse(await engine.commitTransaction(id, '{}') || '{}')
    if (verb === 'rollback') return JSON.parse(await engine.rollbackTransaction(id, '{}') || '{}')
    if (request.batch) {
      const batch = { batch: request.batch.map(one => operation(one.query)), transaction: request.transaction ? {} : undefined }
      const result = JSON.parse(await engine.query(JSON.stringify(batch), '{}', tx))
      return result.batchResult ? { batchResult: result.batchResult.map(answer) } : result
    }
    return answer(JSON.parse(await engine.query(JSON.stringify(operation(request.query)), '{}', tx)))
  }

  const port = Number(process.argv[process.argv.indexOf('-p') + 1])
  http.createServer((request, response) => {
    const parts = []
    request.on('data', part => parts.push(part))
    request.on('end', async () => {
      const text = Buffer.concat(parts).toString()
      let result
      try {
        result = await handle(request.url.split('?')[0], text, request.headers['x-transaction-id'])
      } catch (error) {
        result = { errors: [{ error: String(error), user_facing_error: { message: String(error) } }] }
      }
      response.setHeader('content-type', 'application/json')
      response.end(JSON.stringify(result))
    })
  }).listen(port, 'localhost')
}
main().catch(error => { console.error(error); process.exit(1) })
