# The identity provider of the end-to-end tests and of docker-compose.yml: for trials, never for production.
FROM node:22-bookworm-slim
WORKDIR /idp
COPY server/tests/idp/package.json server/tests/idp/package-lock.json ./
RUN npm ci --omit=dev --ignore-scripts --no-audit --no-fund
COPY server/tests/idp/provider.mjs ./
USER node
EXPOSE 4400
CMD ["node", "provider.mjs"]
