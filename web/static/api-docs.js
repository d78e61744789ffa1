// Starts Swagger UI on /api/docs. A file of its own, because the page's policy allows no script within it.
"use strict";

window.SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  docExpansion: "none", // with more than 122 operations open at once, Swagger UI shows seven
  validatorUrl: null, // by default a badge is fetched from elsewhere
  persistAuthorization: false, // tokens stay in this page
});
